#!/bin/sh
# Unpack Debian's etcd-server below a private folder. Installs nothing, needs no root.
set -eu
target=$1
if [ -x "$target/usr/bin/etcd" ]; then
    "$target/usr/bin/etcd" --version | head -n 1
    exit 0
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "error: this is no Debian; put an etcd on the PATH instead" >&2
    exit 1
}
mkdir -p "$target"
target=$(cd "$target" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -o APT::Sandbox::User= -qq download etcd-server || {
    echo "error: no etcd-server from the package sources; run apt-get update, or put an etcd on the PATH" >&2
    exit 1
}
dpkg-deb -x etcd-server_*.deb "$target"
"$target/usr/bin/etcd" --version | head -n 1
