#!/usr/bin/env bash
# pip 26.1 (PyPI) has `--no-build-isolation`, and its configuration and environment take the long names of options,
# so a good guess is that `no-build-isolation = true` in pip.conf turns the isolation off and `false` leaves it on. It is
# the other way round: the option stores into `build_isolation`, and the value of a setting is stored as it is, not
# negated. `false` (and `PIP_NO_BUILD_ISOLATION=0`) builds without isolation, `true` with it. Where packages
# are built without an index, the obvious setting makes pip look for the build's requirements on the network, which it
# was to prevent.
#
# Seen on 2026-11-28 with Python 3.11: "false: without isolation, true: isolated, no setting: isolated".
#
# Exits with 0 if it is still so, with 1 if `true` turns the isolation off.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
python3 -m venv tool
tool/bin/pip install --quiet --disable-pip-version-check "pip==26.1"
tool/bin/pip uninstall --quiet --yes setuptools wheel flit_core >/dev/null 2>&1 || true
mkdir project
cat >project/pyproject.toml <<'TOML'
[build-system]
requires = ["flit_core==3.12.0"]
build-backend = "flit_core.buildapi"

[project]
name = "example"
version = "1"
description = "An example"
TOML
touch project/example.py

# Only an isolated build gets the backend, which this environment lacks.
builds() { # [SETTING]
  printf '[global]\n%s\n' "${1:+no-build-isolation = $1}" >pip.conf
  if PIP_CONFIG_FILE=$directory/pip.conf tool/bin/pip wheel --quiet --disable-pip-version-check --no-deps \
    --wheel-dir wheels ./project >log 2>&1; then
    echo isolated
  elif grep -q "flit_core" log; then
    echo "without isolation"
  else
    cat log >&2
    exit 2
  fi
}
seen="false: $(builds false), true: $(builds true), no setting: $(builds)"
echo "pip $(tool/bin/pip --version | cut -d' ' -f2): $seen"
[ "$seen" = "false: without isolation, true: isolated, no setting: isolated" ]
