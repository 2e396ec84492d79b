#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: debian-cloud.sh
# Unpacks, and does not install, Debian's stock cloud kernel. The last line of standard output is the directory that holds vmlinuz,
# config, System.map and lib/modules/VERSION, with the tables of depmod. What was fetched once is there at once.
#
# XDG_CACHE_HOME   the cache is under coracle/debian-cloud in it (~/.cache).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/debian-cloud
meta=linux-image-$(cat "$here/version")-cloud-amd64

fail() {
    echo "debian-cloud.sh: $*" >&2
    exit 1
}

# Which version is the newest changes with Debian's lists; a cached one does as long as it is not removed.
newest() {
    find "$cache" -mindepth 1 -maxdepth 1 -type d -name '*-cloud-amd64_*' ! -name '*.unpacking' 2> /dev/null |
        sort -V | tail -n 1
}

result=$(newest)
if [ -z "$result" ]; then
    "$here/packages.sh" debian-cloud
    mkdir -p "$cache"
    # One at a time; a process that waited finds it done.
    exec 9> "$cache/lock"
    flock 9
    result=$(newest)
fi
if [ -z "$result" ]; then
    # The meta package depends on the kernel of the day.
    package=$(apt-cache depends --no-recommends --no-suggests "$meta" | sed -n 's/^ *Depends: //p' | head -n 1)
    [ -n "$package" ] || fail "apt knows no $meta: apt-get update may help"
    work=$cache/$package.fetching
    rm -rf "$work" "$cache"/*.unpacking
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$work"
    echo "fetching $package" >&2
    (cd "$work" && apt-get -q download "$package" >&2) || fail "cannot fetch $package"
    file=$(find "$work" -name '*.deb')
    result=$cache/${package}_$(dpkg-deb -f "$file" Version | tr -c 'a-zA-Z0-9.+~\n-' _)
    dpkg-deb -x "$file" "$work/tree"
    version=$(basename "$work"/tree/boot/vmlinuz-* | sed 's/^vmlinuz-//')
    [ -d "$work/tree/usr/lib/modules" ] && modules=$work/tree/usr/lib || modules=$work/tree/lib
    mkdir -p "$result.unpacking/lib"
    for name in vmlinuz config System.map; do
        mv "$work/tree/boot/$name-$version" "$result.unpacking/$name"
    done
    mv "$modules/modules" "$result.unpacking/lib/modules"
    PATH=$PATH:/usr/sbin:/sbin depmod -b "$result.unpacking" "$version" || fail "depmod failed"
    mv -T "$result.unpacking" "$result"
fi
echo "$result"
