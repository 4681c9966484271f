#!/usr/bin/env bash
# Runs the tests of every client against the stack that POOL_ENDPOINT, POOL_ENDPOINT_HTTPS,
# SHELL_POOL_ENDPOINT, SSL_CERT_FILE and TOKEN say. Environments are made in DIRECTORY and kept there.
# Usage: run.sh DIRECTORY [CLIENT...]
set -euo pipefail

: "${POOL_ENDPOINT:?}" "${POOL_ENDPOINT_HTTPS:?}" "${SHELL_POOL_ENDPOINT:?}"
: "${SSL_CERT_FILE:?}" "${TOKEN:?}"
mkdir -p "${1:?the directory for the environments is missing}"
directory=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")"
# Compiled clients bring a compiler each: only who names them gets them.
shopt -s extglob
[ $# -gt 0 ] || set -- !(compiled-*)/requirements.txt
here=$PWD
export directory here PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here/common

tests() { # CLIENT
  local bin=$directory/$1/bin
  if [ -f "$here/$1/test.mjs" ]; then
    # Modules are looked for beside the file.
    cp "$here/$1/test.mjs" "$directory/$1/"
    "$bin/node" --test --test-reporter=tap "$directory/$1/test.mjs"
  else
    "$bin/python" -m unittest discover --start-directory "$here/$1" --verbose
  fi
}

client() { # CLIENT
  local log=$directory/$1.log scratch count status=0
  # The certificate of the stack is not the one of package registries.
  env -u SSL_CERT_FILE "$here/environment.sh" "$1" "$directory/$1" >"$log" 2>&1 || {
    status=$?
    echo "clients: the environment of $1 cannot be made: $(<"$log")"
    return $status
  }
  # For files that clients leave where they run.
  scratch=$(mktemp -d)
  (cd "$scratch" && tests "$1") >"$log" 2>&1 || status=$?
  rm -rf "$scratch"
  count=$(sed -nE 's/^(Ran|# tests) ([0-9]+).*/\2/p' "$log" | tail -n 1)
  [ "${count:-0}" -gt 0 ] || status=1
  if [ $status = 0 ]; then
    echo "clients: $1: ${count:-no} tests passed"
  else
    printf 'clients: %s: FAILED, of %s tests:\n%s\n' "$1" "${count:-no}" "$(<"$log")"
  fi
  return $status
}
export -f client tests

printf '%s\n' "${@%/requirements.txt}" |
  xargs -P 2 -I{} bash -euo pipefail -c 'client "$1"' client {}
