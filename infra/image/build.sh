#!/usr/bin/env bash
# Builds the session image: Debian trixie with Python 3.13 and the packages of requirements.txt, as
# one read-only erofs file. Usage: build.sh OUTPUT_DIRECTORY
#
# The result is OUTPUT_DIRECTORY/<hash of this folder>.erofs and the link current.erofs. Nothing is
# built when it is there already. Needs root, mmdebstrap, erofs-utils and pip.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
output=$(mkdir -p "$1" && cd "$1" && pwd)
recipe=$(cat "$here"/{build.sh,packages.apt,pip.conf,pip.patch,requirements.txt,uv.py,uv.toml} | sha256sum | cut -c1-16)
image=$output/$recipe.erofs
epoch=1767225600 # all times in the image: 2026-01-01

exec 9>"$output/.lock"
flock 9
if [ -f "$image" ]; then
  ln -sfn "$recipe.erofs" "$output/current.erofs"
  echo "image: $image is up to date"
  exit 0
fi

root=$(mktemp -d "$output/root.XXXXXX")
trap 'rm -rf "$root" "$image.new"' EXIT
started=$SECONDS
step() { echo "image: [$((SECONDS - started)) s] $*"; }

step "Debian trixie with Python 3.13"
packages=$(paste -sd, "$here/packages.apt")
SOURCE_DATE_EPOCH=$epoch mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  trixie "$root"

step "Python packages"
# Downloaded by the host's pip, whatever its Python, and installed by the image's own.
wheels=$root/tmp/wheels
python3 -m pip download --quiet --disable-pip-version-check --dest "$wheels" \
  --no-deps --require-hashes --only-binary=:all: \
  --python-version 3.13 --implementation cp --abi cp313 \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any \
  --requirement "$here/requirements.txt"
cp "$here/requirements.txt" "$wheels/"
chroot "$root" env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp sh -c '
  set -- /tmp/wheels/pip-*.whl
  python3 "$1/pip" install --quiet --root-user-action=ignore --no-compile \
    --break-system-packages --no-index --find-links /tmp/wheels --no-deps --require-hashes \
    --requirement /tmp/wheels/requirements.txt'
# Sessions install into a directory of their own, so Debian need not be guarded from them. Their pip knows
# that there is no network, and environments that they make get the same one.
rm "$root/usr/lib/python3.13/EXTERNALLY-MANAGED"
cp "$here/pip.conf" "$root/etc/pip.conf"
patch --quiet --strip=1 --fuzz=0 --directory="$root/usr/local/lib/python3.13/dist-packages" <"$here/pip.patch"
rm "$root"/usr/share/python-wheels/pip-*.whl
(
  cd "$wheels"
  python3 -m zipfile -e pip-*.whl pip
  patch --quiet --strip=1 --fuzz=0 --directory=pip <"$here/pip.patch"
  find pip -exec touch --date="@$epoch" {} +
  cd pip
  TZ=UTC python3 -m zipfile -c "$root/usr/share/python-wheels/$(basename ../pip-*.whl)" ./*
)
rm -rf "$wheels"
find "$root/usr/local/lib/python3.13" -type d -name tests -prune -exec rm -rf {} +

# uv installs beside what it does not know, and is told of it.
mkdir -p "$root"/usr/local/lib/uv "$root"/etc/uv
mv "$root/usr/local/bin/uv" "$root/usr/local/lib/uv/uv"
rm "$root/usr/local/bin/uvx"
install --mode=755 "$here/uv.py" "$root/usr/local/bin/uv"
cp "$here/uv.toml" "$root/etc/uv/uv.toml"
sed -n 's/==.*//p' "$here/requirements.txt" >"$root/usr/local/lib/uv/present.txt"

step "user, mount points, byte code and the font cache"
echo 'session:x:1000:1000:session:/home/session:/bin/bash' >>"$root/etc/passwd"
echo 'session:x:1000:' >>"$root/etc/group"
mkdir -p "$root"/{mnt/data,opt/hearth,home/session,opt/mpl-cache,run,tmp,proc,sys,dev}
: >"$root/etc/resolv.conf"
echo sandbox >"$root/etc/hostname"
printf '%s\n' '127.0.0.1 localhost' '127.0.0.1 sandbox' '::1 localhost ip6-localhost' >"$root/etc/hosts"
ln -sf python3 "$root/usr/bin/python"
# The image is read-only: byte code that is missing now would be compiled anew in every session.
chroot "$root" python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  /usr/lib/python3.13 /usr/lib/python3 /usr/local/lib/python3.13 >/dev/null || true
chroot "$root" env HOME=/tmp MPLCONFIGDIR=/opt/mpl-cache python3 -c 'import matplotlib.font_manager'
chroot "$root" env HOME=/tmp MPLCONFIGDIR=/opt/mpl-cache python3 -c '
import IPython, matplotlib.pyplot, numpy, pandas, pkg_resources, sklearn' 2>/dev/null
rm -rf "$root"/var/{cache,log,lib/apt/lists}/* "$root"/tmp/* "$root"/dev/*

step "file system"
mkfs.erofs --quiet -T"$epoch" -U 00000000-0000-0000-0000-000000000000 "$image.new" "$root"
mv "$image.new" "$image"
ln -sfn "$recipe.erofs" "$output/current.erofs"
step "done: $image ($(du -h "$image" | cut -f1))"
