#!/usr/bin/env bash
# Asks the stack at ORIGIN whatever its own description allows and forbids, and checks that the answers are
# as described. The environment is made in DIRECTORY and kept there. SEED repeats a run; TOKEN is sent if it
# is set; with EXPECTED_STATUS every answer must have that.
# Usage: run.sh DIRECTORY CONTRACT POOL_ENDPOINT [OPTION...]
set -euo pipefail

: "${ORIGIN:?}" "${SEED:?}"
mkdir -p "${1:?the directory for the environment is missing}"
directory=$(cd "$1" && pwd)
contract=${2:?the contract is missing} endpoint=${3:?the endpoint is missing}
shift 3
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONDONTWRITEBYTECODE=1

(
  flock 9
  wanted=$(sha256sum <"$here/requirements.txt")
  [ "$(cat "$directory/installed" 2>/dev/null)" != "$wanted" ] || exit 0
  echo "fuzz: installing $(grep -oE '^schemathesis==[^ ]*' "$here/requirements.txt")"
  python3 -m venv --clear "$directory/venv"
  "$directory/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --no-deps --only-binary=:all: --requirement "$here/requirements.txt"
  echo "$wanted" >"$directory/installed"
) 9>"$directory/.lock"

options=(--seed "$SEED" --no-color)
[ -z "${TOKEN:-}" ] || options+=(--header "Authorization: Bearer $TOKEN")
[ -z "${EXPECTED_STATUS:-}" ] || export SCHEMATHESIS_HOOKS=$here/refused.py
# For files that it leaves where it runs.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
"$directory/venv/bin/schemathesis" --config-file "$here/schemathesis.toml" \
  run "$ORIGIN/openapi/$contract.json" --url "$endpoint" "${options[@]}" "$@"
