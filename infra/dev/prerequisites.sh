#!/usr/bin/env bash
# Installs what a fresh Debian or Ubuntu machine lacks. Nothing happens when all is there.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "root is needed: sandboxes are made of namespaces, mounts and cgroups"
command -v apt-get >/dev/null || fail "apt-get is needed: only Debian 12+ and Ubuntu are supported"
command -v cargo >/dev/null || fail "cargo is missing: install Rust first (https://rustup.rs)"
missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v curl >/dev/null || missing+=(curl)
command -v python3 >/dev/null || missing+=(python3)
python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing+=(python3-venv)
for package in ca-certificates debian-archive-keyring e2fsprogs erofs-utils libseccomp-dev mmdebstrap patch pkg-config systemd; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
    missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
  echo "prerequisites: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get could not install ${missing[*]}"
fi
grep -qw erofs /proc/filesystems || modprobe erofs 2>/dev/null || fail "this kernel has no erofs"
