#!/usr/bin/env bash
# Runs the tests of sandboxes, limits, kills, leaks and restarts on a kernel that has control groups of version 2
# only, whatever this machine's kernel has. Usage: test-v2.sh [PART...]   (all parts without one)
#
# The kernel is Debian's user-mode-linux, an ordinary process, so that neither KVM nor a disk image is needed. Its
# root is this machine's, read-only; what its processes write is in its memory. It has one processor, and a fork
# takes some 40 ms, so time limits are longer there by the factor HEARTH_PATIENCE.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# Time that a part may take on a busy machine, in seconds, and memory of the guest.
seconds=${HEARTH_V2_SECONDS:-1800}
memory=${HEARTH_V2_MEMORY:-4G}

# What each part runs: a crate's test program, the control group that it starts in, and filters for tests, each of
# which must match one.
part() {
  case $1 in
    sandbox) echo worker system.slice/worker.service sandbox:: sync:: ;;
    stack) echo loadtest system.slice/worker.service hostile_code:: leaks:: keeper:: \
      cluster::a_killed_zygote cluster::a_worker_whose_caged cluster::paused_helpers \
      failover::a_drained_worker failover::a_call_whose_worker_is_killed \
      failover::no_request_fails_while_all_workers_are_restarted ;;
    # As `sudo` in a shell has it, before any unit of systemd has limits for processor time.
    login) echo loadtest user.slice/user-0.slice/session-1.scope execute:: \
      hostile_code::a_fork_bomb hostile_code::a_memory_bomb ;;
    *) fail "there is no part $1" ;;
  esac
}

# Mounts what an init would have.
mount_all() {
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mountpoint -q /dev || mount -t devtmpfs dev /dev
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs -o mode=1777 shm /dev/shm
  mount -t tmpfs -o mode=1777 tmp /tmp
  mount -t tmpfs -o mode=755 run /run
  # As systemd mounts it.
  mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
  mkdir -p /run/uml/lib
  ln -s /usr/lib/uml/modules /run/uml/lib/modules
  modprobe --all --dirname /run/uml erofs loop ipv6
}

# Makes a control group with those above it as systemd has them, which hands these two down by itself, and enters.
enter() {
  local directory=/sys/fs/cgroup name
  for name in ${1//\// }; do
    echo "+memory +pids" >"$directory/cgroup.subtree_control"
    directory=$directory/$name
    mkdir "$directory"
  done
  echo $$ >"$directory/cgroup.procs"
}

# The first process of that kernel. Words of its command line that the kernel does not know are variables.
guest() {
  export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
  local crate group filters status=0
  # shellcheck disable=SC2154
  read -r crate group filters <<<"$(part "$hearth_part")"
  mount_all
  enter "$group"
  # The loopback interface: SIOCSIFFLAGS with IFF_UP.
  python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))'
  echo "kernel $(uname -r), control groups: $(cat /sys/fs/cgroup/cgroup.controllers), in $(cat /proc/self/cgroup)"
  # shellcheck disable=SC2086,SC2154
  (cd "$root/$crate" && "$hearth_program" --test-threads=1 $filters) || status=$?
  echo "test-v2: status $status"
  # Whatever this machine has for an init: LINUX_REBOOT_CMD_POWER_OFF.
  python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'
}

if [ $$ = 1 ]; then
  guest
  exit
fi

# Path of a crate's `it` test program, built as `make test` builds it, so that nothing is compiled twice.
program() {
  cargo --config "$tests_profile" test --release --workspace --test it --no-run --message-format=json |
    python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    manifest = message.get("manifest_path", "")
    if message.get("executable") and manifest == sys.argv[1] and message["target"]["name"] == "it":
        print(message["executable"])' "$root/$1/Cargo.toml"
}

# How many tests the filters match.
matched() {
  local program=$1
  shift
  (cd "$(dirname "$program")" && "$program" --list --format terse "$@") | grep -c ': test$' || true
}

# Runs a part; adds to $passed and $failed.
run() {
  local crate filters program filter expected counts
  read -r crate _ filters <<<"$(part "$1")"
  program=$(program "$crate")
  [ -x "$program" ] || fail "$crate has no test program \`it\`"
  for filter in $filters; do
    [ "$(matched "$program" "$filter")" -gt 0 ] || fail "no test of $crate is called $filter"
  done
  # shellcheck disable=SC2086
  expected=$(matched "$program" $filters)
  printf '\n── test-v2: %s, %s tests of %s, at most %s s ──\n' "$1" "$expected" "$crate" "$seconds"
  LD_PRELOAD=$shared/uml/xstate.so timeout --kill-after=10 "$seconds" \
    linux.uml mem="$memory" con=null con0=null,fd:1 quiet ro rootfstype=hostfs rootflags=/ \
    init="$root/infra/dev/test-v2.sh" cgroup_no_v1=all hearth_part="$1" hearth_program="$program" \
    HEARTH_PATIENCE="${HEARTH_PATIENCE:-6}" HEARTH_BIN_DIR="$kept_programs" RUST_BACKTRACE=0 </dev/null | tee "$log" || true
  counts=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$log")
  set -- ${counts:-0 "$expected"}
  passed=$((passed + $1))
  # What did not run has failed, too.
  failed=$((failed + expected - $1))
  grep -q '^test-v2: status 0' "$log" || [ $failed -gt 0 ] || failed=1
}

[ $# -gt 0 ] || set -- sandbox stack login
cd "$root"
command -v linux.uml >/dev/null && command -v modprobe >/dev/null ||
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    kmod user-mode-linux >/dev/null || fail "apt-get could not install user-mode-linux"
keep_programs
mkdir -p "$shared/uml"
cc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$shared/uml/xstate.so" infra/dev/uml-xstate.c
log=$(mktemp)
trap 'rm -f "$log"; cargo build --quiet --release --workspace' EXIT
passed=0 failed=0
for part in "$@"; do
  part "$part" >/dev/null
  run "$part"
done
printf '\ntest-v2: %s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
