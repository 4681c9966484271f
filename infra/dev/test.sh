#!/usr/bin/env bash
# Every test of the repository. Needs what `make prerequisites nats stores image build` makes.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
cd "$root"

step() { printf '\n── %s ──\n' "$*"; }

step "proto, ingress, worker, loadtest"
cargo test --release --workspace --no-fail-fast
