#!/usr/bin/env bash
# Puts Debian's Prometheus and promtool, which tests use, into a directory. Usage: fetch.sh DIRECTORY
# Nothing is downloaded when they are there already, and nothing is installed. Needs apt-get and dpkg-deb.
set -euo pipefail

directory=$(mkdir -p "$1" && cd "$1" && pwd)
exec 9>"$directory/.prometheus.lock"
flock 9
if [ -x "$directory/prometheus" ] && [ -x "$directory/promtool" ]; then
  echo "prometheus: there already"
  exit 0
fi

download=$(mktemp -d "$directory/prometheus.XXXXXX")
trap 'rm -rf "$download"' EXIT
# The user that apt-get downloads with.
chmod 755 "$download"
chown _apt "$download" 2>/dev/null || true
cd "$download"
apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }
dpkg-deb --extract ./prometheus_*.deb tree
mv tree/usr/bin/promtool tree/usr/bin/prometheus "$directory/"
echo "prometheus: $("$directory/promtool" --version 2>&1 | head -n 1)"
