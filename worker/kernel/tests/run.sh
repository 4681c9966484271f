#!/bin/sh
# Runs the kernel's tests where the kernel runs: inside a session image, as a session's user, without
# a network. Usage: run.sh IMAGE [TEST...]   (TEST as unittest names it: test_results.Results)
#
# Needs root. All mounts live in a namespace of their own and go with its processes; so does the
# loop device.
set -eu

if [ "${HEARTH_INSIDE-}" != yes ]; then
  kernel=$(dirname "$(dirname "$(readlink -f "$0")")")
  image=$(readlink -f "$1")
  shift
  HEARTH_INSIDE=yes exec unshare --mount --pid --net --fork --kill-child \
    sh "$kernel/tests/run.sh" "$kernel" "$image" "$@"
fi

kernel=$1 image=$2
shift 2
mount -t tmpfs tmpfs /mnt
root=/mnt/root
mkdir "$root"
mount -o loop,ro -t erofs "$image" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom; do
  : >"$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=700,uid=1000,gid=1000 tmpfs "$root/home/session"
mount -t tmpfs -o mode=700,uid=1000,gid=1000 tmpfs "$root/mnt/data"
# A copy: the checkout may be somewhere that a session's user cannot read.
mount -t tmpfs -o mode=755 tmpfs "$root/opt/hearth"
cp -r "$kernel/." "$root/opt/hearth/"
chmod -R a+rX "$root/opt/hearth"
ip link set lo up 2>/dev/null || true

[ $# -gt 0 ] || set -- discover --start-directory /opt/hearth/tests
# No exec: a change of user makes a process outlive its parent, this shell takes it along.
status=0
# shellcheck disable=SC2046 # one word for each variable
chroot --userspec=1000:1000 --groups= "$root" /usr/bin/env -i $(cat "$kernel/environment") \
  /usr/bin/python3 -I -B /opt/hearth/tests/__main__.py "$@" </dev/null || status=$?
exit "$status"
