#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: qemu.sh
# Finds the emulator that the outer Linux runs in. The last line of standard output is the path of qemu-system-x86_64. Debian's
# package is installed if it is missing; where that would remove another package (other versions of QEMU's tools do), its files
# are unpacked into the cache instead, with the libraries that the machine lacks.
#
# XDG_CACHE_HOME   the cache is under coracle/qemu in it (~/.cache).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
config=$here/../../guest-kernel-config
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/qemu
program=qemu-system-x86_64

fail() {
    echo "tests/nested/qemu.sh: $*" >&2
    exit 1
}

# The names and versions of the packages that an installation would bring; REMOVES is set if it would remove any.
plan() {
    simulated=$(apt-get -s install --no-install-recommends qemu-system-x86 seabios) ||
        fail "apt knows no qemu-system-x86: apt-get update may help"
    if echo "$simulated" | grep -q '^Remv '; then removes=1; else removes=; fi
    planned=$(echo "$simulated" | sed -n 's/^Inst \([^ ]*\) .*(\([^ ]*\) .*/\1=\2/p')
}

# Brings the planned packages into DIRECTORY.
unpack() {
    directory=$1
    cd "$directory"
    # shellcheck disable=SC2086
    apt-get -q download $planned
    for file in ./*.deb; do
        dpkg-deb -x "$file" tree
        rm "$file"
    done
}

if [ "${1:-}" = --unpack-now ]; then
    plan
    unpack "$2"
    exit
fi

if command -v "$program" > /dev/null; then
    command -v "$program"
    exit
fi
if [ ! -x "$cache/$program" ]; then
    if ! apt-cache show qemu-system-x86 > /dev/null 2>&1; then
        "$config/packages.sh" emulator
    fi
    plan
    if [ -z "$removes" ]; then
        "$config/packages.sh" emulator
        command -v "$program" || fail "the package qemu-system-x86 brought no $program"
        exit
    fi
    mkdir -p "$cache"
    # One at a time; a process that waited finds it unpacked.
    exec 9> "$cache.lock"
    flock 9
fi
if [ ! -x "$cache/$program" ]; then
    rm -rf "$cache"
    mkdir -p "$cache"
    "$config/step.sh" "unpack qemu-system-x86 (installing it would remove packages)" "$0" --unpack-now "$cache"
    cat > "$cache/wrapper" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH=$cache/tree/usr/lib/x86_64-linux-gnu:$cache/tree/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH
exec $cache/tree/usr/bin/$program -L $cache/tree/usr/share/qemu -L $cache/tree/usr/share/seabios "\$@"
WRAPPER
    chmod +x "$cache/wrapper"
    "$cache/wrapper" --version > /dev/null || fail "the unpacked $program does not start"
    mv "$cache/wrapper" "$cache/$program"
fi
echo "$cache/$program"
