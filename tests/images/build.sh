#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Builds what tests, benchmarks and `make run` run: an OCI layout folder for each recipe.sh, tag `latest`, and a raw ext4
# root disk for each disk.sh. The last line of standard output is the folder that holds them. What was built once is there
# at once.
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
    cp --sparse=always "$disk" "$images.building/$name.ext4"
    rm -f "$disk"
}

if [ ! -d "$images" ]; then
    "$repository/guest-kernel-config/packages.sh" images
    mkdir -p "$cache"
    # One at a time; who waited finds them done.
    exec 9> "$cache/lock"
    flock 9
fi
if [ ! -d "$images" ]; then
    # Readable for mmdebstrap's other users.
    work=$(mktemp -d "${TMPDIR:-/tmp}/coracle-images.XXXXXX")
    trap 'rm -rf "$work" "$images.building"' EXIT
    trap 'exit 1' HUP INT TERM
    chmod 755 "$work"
    date=2026-01-01T00:00:00Z
    export SOURCE_DATE_EPOCH=1767225600
    rm -rf "$images.building"
    mkdir -p "$images.building"
    for recipe in "$here"/*/recipe.sh; do
        name=$(basename "$(dirname "$recipe")")
        echo "building the test image $name" >&2
        image=$images.building/$name:latest
        umoci init --layout "$images.building/$name"
        umoci new --image "$image"
        # shellcheck source=/dev/null
        (cd "$(dirname "$recipe")" && . "$recipe")
        umoci gc --layout "$images.building/$name"
    done
    for recipe in "$here"/*/disk.sh; do
        name=$(basename "$(dirname "$recipe")")
        echo "building the root disk $name" >&2
        # shellcheck source=/dev/null
        (cd "$(dirname "$recipe")" && . "$recipe")
    done
    mv -T "$images.building" "$images"
fi
echo "$images"
