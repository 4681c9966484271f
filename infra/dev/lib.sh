# Shared by the scripts of this folder: where everything lies, and how processes start and stop.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# State of the development stack. Another directory makes another stack.
home=${HEARTH_HOME:-$root/.hearth}
programs=$root/target/release
# Tools and image do not depend on the stack.
shared=$root/.hearth
# How tests are compiled, and the programs that they run: compiling tests puts unoptimised ones into $programs.
# shellcheck disable=SC2034
tests_profile=$root/infra/dev/tests.toml
kept_programs=$shared/programs
# Workers' names are unique on a host, whatever checkouts run on it.
worker_prefix=dev-$(printf %s "$home" | sha256sum | cut -c1-6)

subscription=00000000-0000-0000-0000-000000000000
pools_path=/subscriptions/$subscription/resourceGroups/hearth/sessionPools
pool_path=$pools_path/python
issuer=https://hearth.localhost

# First ports of ingress (one more for every further one) and the port of NATS.
http_port=${HEARTH_HTTP_PORT:-8080}
https_port=${HEARTH_HTTPS_PORT:-8443}
nats_port=${HEARTH_NATS_PORT:-4222}
# First port at which workers tell their readiness.
admin_port=${HEARTH_ADMIN_PORT:-9080}

fail() {
  echo "error: $*" >&2
  exit 1
}

# Builds the programs and keeps a copy for tests.
keep_programs() {
  (cd "$root" && cargo build --quiet --release --workspace)
  mkdir -p "$kept_programs"
  (cd "$programs" && cp --remove-destination devkeys hearth ingress libzygote.so loadtest worker "$kept_programs/")
}

# The process of a pid file, if it still is the one that was started: the file holds its number and
# its start time, because numbers are used again.
running() {
  local pid born
  [ -f "$home/run/$1.pid" ] || return 1
  pid=$(cat "$home/run/$1.pid")
  born=$(cat "$home/run/$1.born" 2>/dev/null) || return 1
  [ "$(born "$pid")" = "$born" ] && echo "$pid"
}

# Start time of a process in clock ticks since boot; nothing for a process that has ended.
born() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # shellcheck disable=SC2086 # fields behind the name, which may hold anything
  set -- ${stat##*) }
  [ "$1" = Z ] || echo "${20}"
}

# build FILE…: which files these are now. Another build of a program is another file.
build() {
  stat -Lc '%n %i %Y' "$@"
}

# outdated NAME FILE…: whether the process runs, and was started from other files than these.
outdated() {
  local name=$1
  shift
  running "$name" >/dev/null &&
    [ "$(cat "$home/run/$name.build" 2>/dev/null)" != "$(build "$@")" ]
}

# start NAME PROGRAM ARGUMENTS…: in the background, with log and pid file.
start() {
  local name=$1 pid
  shift
  # Not with the lock of this script, which would stay taken.
  setsid "$@" >>"$home/log/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  born "$pid" >"$home/run/$name.born"
  echo "$pid" >"$home/run/$name.pid"
}

# wait_for NAME SECONDS COMMAND…: until the command succeeds; fails when the process ends first.
wait_for() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    running "$name" >/dev/null || fail "$name has ended: $(tail -n 3 "$home/log/$name.log")"
    [ $SECONDS -lt $deadline ] || fail "$name is not ready; see $home/log/$name.log"
    sleep 0.05
  done
}

# stop NAME: asks it to end, and insists after 60 seconds: a worker drains for 10 and then may take 30.
stop() {
  local name=$1 pid deadline=$((SECONDS + 60))
  if pid=$(running "$name"); then
    kill -TERM "$pid"
    while running "$name" >/dev/null; do
      if [ $SECONDS -ge $deadline ]; then
        echo "$name does not end; killing it" >&2
        kill -KILL "$pid"
      fi
      sleep 0.05
    done
    echo "stopped $name"
  fi
  rm -f "$home/run/$name".{pid,born,build,ready}
}

listening() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
