#!/usr/bin/env bash
# Stops what up.sh started, and nothing else. Keys, settings and logs stay.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

[ -d "$home/run" ] || exit 0
exec 9>"$home/.lock"
flock 9

# The bus last: the others say goodbye over it.
for kind in ingress worker nats; do
  for file in "$home/run/$kind"*.pid; do
    [ -e "$file" ] && stop "$(basename "$file" .pid)"
  done
done

# A worker removes its own traces; one that was killed could not.
find /sys/fs/cgroup -depth -type d -path "*/$worker_prefix-*" -exec rmdir {} + 2>/dev/null || true
rm -rf "$home/data" "$home/nats" "$home/store" "$home/dev.env" /run/hearth/"$worker_prefix"-*
