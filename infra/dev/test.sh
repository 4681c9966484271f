#!/usr/bin/env bash
# Runs the tests that its arguments choose, as `cargo test` has them; all without any. Needs what
# `make build image nats stores prometheus` makes.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

keep_programs
# Whoever installs from there gets optimised programs again.
trap 'cargo build --quiet --release --workspace' EXIT
# shellcheck disable=SC2154
HEARTH_BIN_DIR=$kept_programs cargo --config "$tests_profile" test --release --workspace --no-fail-fast "$@"
