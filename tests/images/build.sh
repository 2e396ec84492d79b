#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: build.sh [NAME...]
# Builds the test images NAME, or all of them: an OCI layout directory for each recipe.sh, tag `latest`, and a raw ext4 root
# disk for each disk.sh. The last line of standard output is the directory that holds them. Each is built once and cached.
#
# XDG_CACHE_HOME   the cache is under coracle/images in it (~/.cache).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/images

fail() {
    echo "tests/images/build.sh: $*" >&2
    exit 1
}

# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$release" ] || fail "/etc/os-release names no Debian release"
key=$( { echo "$release"; cd "$here" && find . -type f ! -name README.md | LC_ALL=C sort | xargs sha256sum; } |
    sha256sum | cut -c1-16)
images=$cache/$key

# debian_tree FILE HOOK PACKAGE...: a layer of these packages and what they depend on, unpacked and not configured, after
# the shell commands HOOK with the tree in $1. Runs as root or, in a user namespace, as anybody.
debian_tree() {
    tar=$1 hook=$2
    shift 2
    packages=$(echo "$*" | tr ' ' ,)
    # shellcheck disable=SC2046
    mmdebstrap --quiet --variant=extract --include="$packages" --aptopt='APT::Install-Recommends "false"' \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --skip=cleanup \
        --extract-hook="$here/tidy.sh" --extract-hook="$hook" \
        "$release" "$tar" $("$here/debian_sources.sh" "$work") >&2
}

# layer FILE: adds a tar to the image that is being made. Everything of an image is dated alike: same packages, same bytes.
layer() {
    umoci raw add-layer --image "$image" --history.created "$date" --history.created_by "tests/images/$name" "$1"
}

# configure OPTION...: how the image runs, in umoci's words.
configure() {
    umoci config --image "$image" --created "$date" --history.created "$date" --architecture amd64 --os linux "$@"
}

# root_disk SIZE HOOK PACKAGE...: NAME.ext4, a system of these packages, installed and configured, after HOOK with the tree in
# $1. mke2fs runs as a hook too, where the tree's owners are what they should be: as root, or in the user namespace. There
# /proc and the like are mounted in the tree; through a second, single mount of it they are not seen.
root_disk() {
    size=$1 hook=$2
    shift 2
    packages=$(echo "$*" | tr ' ' ,)
    disk=$work/$name.ext4
    : > "$disk"
    chmod 666 "$disk"
    mkdir -p "$work/tree"
    make="mount --bind \"\$1\" $work/tree && mke2fs -q -F -t ext4 -d $work/tree $disk $size && umount $work/tree"
    # shellcheck disable=SC2046
    mmdebstrap --quiet --variant=essential --include="$packages" --aptopt='APT::Install-Recommends "false"' \
        --customize-hook="$hook" --customize-hook="$make" --format=null "$release" - $("$here/debian_sources.sh" "$work") >&2
    # Holes stay holes.
    cp --sparse=always "$disk" "$images/$name.ext4.building"
    rm -f "$disk"
}

# product NAME: the path of the image or root disk NAME.
product() {
    if [ -e "$here/$1/disk.sh" ]; then echo "$images/$1.ext4"; else echo "$images/$1"; fi
}

# missing NAME...: those that are not built yet.
missing() {
    for name; do
        [ -e "$(product "$name")" ] || echo "$name"
    done
}

# build_image NAME and build_disk NAME: renamed into place when they are complete.
build_image() {
    name=$1
    image=$work/layout/$name:latest
    mkdir -p "$work/layout"
    umoci init --layout "$work/layout/$name"
    umoci new --image "$image"
    cd "$here/$name"
    # shellcheck source=/dev/null
    . ./recipe.sh
    umoci gc --layout "$work/layout/$name"
    # The temporary directory may be on another file system: only the second of these is atomic.
    rm -rf "$images/$name.building"
    mv -T "$work/layout/$name" "$images/$name.building"
    mv -T "$images/$name.building" "$images/$name"
}
build_disk() {
    name=$1
    cd "$here/$name"
    # shellcheck source=/dev/null
    . ./disk.sh
    mv -T "$images/$name.ext4.building" "$images/$name.ext4"
}

# The step that this script runs itself with: one image.
if [ "${1:-}" = --build-now ]; then
    # Readable for mmdebstrap's other users.
    work=$(mktemp -d "${TMPDIR:-/tmp}/coracle-images.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    chmod 755 "$work"
    date=2026-01-01T00:00:00Z
    export SOURCE_DATE_EPOCH=1767225600
    if [ -e "$here/$2/disk.sh" ]; then build_disk "$2"; else build_image "$2"; fi
    exit
fi

if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046
    set -- $(cd "$here" && ls -d ./*/ | tr -d ./)
fi
for name; do
    [ -e "$here/$name/recipe.sh" ] || [ -e "$here/$name/disk.sh" ] || fail "there is no test image '$name'"
done
if [ -n "$(missing "$@")" ]; then
    "$repository/guest-kernel-config/packages.sh" images
    mkdir -p "$images"
    # One build at a time; a process that waited finds the images built.
    exec 9> "$cache/lock"
    flock 9
    for name in $(missing "$@"); do
        "$repository/guest-kernel-config/step.sh" "build the test image $name" "$here/build.sh" --build-now "$name"
    done
fi
echo "$images"
