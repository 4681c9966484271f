#!/usr/bin/env bash
# Runs sandbox tests on a kernel that has control groups of version 2 only, whatever this machine's
# kernel has. Usage: test-v2.sh CRATE [TEST...]   with the tests as `cargo test` names them
#
# The kernel is Debian's user-mode-linux, an ordinary process, so that neither KVM nor a disk image is
# needed. Its root is this machine's, read-only; what its processes write is in its memory. It is slow:
# a fork takes some 20 ms and there is one processor, so that tests which make many processes in a
# bounded time may fail on a busy machine.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# The first process of that kernel.
guest() {
  export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mountpoint -q /dev || mount -t devtmpfs dev /dev
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs -o mode=1777 shm /dev/shm
  mount -t tmpfs -o mode=1777 tmp /tmp
  mount -t tmpfs -o mode=755 run /run
  # As systemd mounts it, and with what it hands down by itself.
  mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
  echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
  mkdir -p /run/uml/lib /sys/fs/cgroup/system.slice/worker.service
  echo $$ >/sys/fs/cgroup/system.slice/worker.service/cgroup.procs
  ln -s /usr/lib/uml/modules /run/uml/lib/modules
  modprobe --all --dirname /run/uml erofs loop ipv6
  # The loopback interface: SIOCSIFFLAGS with IFF_UP.
  python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))'

  echo "kernel $(uname -r), control groups: $(cat /sys/fs/cgroup/cgroup.controllers)"
  local status=0
  # Words of the kernel's command line that it does not know come as variables.
  # shellcheck disable=SC2154
  (cd "$(dirname "$hearth_manifest")" && "$hearth_program" --test-threads=1 ${hearth_tests//,/ }) || status=$?
  echo "test-v2: status $status"
  # Whatever this machine has for an init: LINUX_REBOOT_CMD_POWER_OFF.
  python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'
}

# Path of the crate's `it` test program, built like all others, so that nothing is compiled twice.
build() {
  cargo test --release --workspace --test it --no-run --message-format=json |
    python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    manifest = message.get("manifest_path", "")
    if message.get("executable") and manifest == sys.argv[1] and message["target"]["name"] == "it":
        print(message["executable"])' "$1"
}

if [ $$ = 1 ]; then
  guest
  exit
fi

[ $# -gt 0 ] || fail "usage: test-v2.sh CRATE [TEST...]"
cd "$root"
manifest=$root/$1/Cargo.toml
shift
command -v linux.uml >/dev/null && command -v modprobe >/dev/null ||
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    kmod user-mode-linux >/dev/null || fail "apt-get could not install user-mode-linux"
program=$(build "$manifest")
[ -x "$program" ] || fail "$manifest has no test program \`it\`"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
tests=$(IFS=,; echo "$*")
linux.uml mem="${HEARTH_V2_MEMORY:-4G}" con=null con0=null,fd:1 quiet ro rootfstype=hostfs rootflags=/ \
  init="$root/infra/dev/test-v2.sh" cgroup_no_v1=all hearth_manifest="$manifest" \
  hearth_program="$program" hearth_tests="$tests" </dev/null | tee "$log"
grep -q '^test-v2: status 0' "$log"
