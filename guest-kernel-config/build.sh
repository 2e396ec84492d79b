#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: build.sh [FRAGMENT...]
# Builds the guest kernel from fragment.config, and from further fragments on top of it. The last line of standard output
# is the path of vmlinux; System.map and config are beside it. The result is cached.
#
# KERNEL_SOURCE=DIR   an unpacked, clean Linux tree to take instead of Debian's source package; it is not written to.
# XDG_CACHE_HOME      the cache is under coracle/kernel in it (~/.cache).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/kernel
package=linux-source-$(cat "$here/version")

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

# The words `NAME=value` of the fragments, `n` for what is to stay out.
asked_for() {
    sed -n -e 's/^CONFIG_\([A-Z0-9a-z_]*=.*\)/\1/p' -e 's/^# CONFIG_\([A-Z0-9a-z_]*\) is not set$/\1=n/p' "$@"
}

# Every option of the fragments must be known to this kernel and have survived in the configuration $1.
verify() {
    config=$1
    shift
    find "$source" -name 'Kconfig*' -exec sed -n 's/^[[:blank:]]*\(menu\)\{0,1\}config[[:blank:]]\{1,\}//p' {} + > known
    asked_for "$@" > asked
    asked_for "$config" > granted
    awk -F= '
        FILENAME == "known" { known[$1]; next }
        { name = $1; value = substr($0, length(name) + 2) }
        FILENAME == "granted" { granted[name] = value; next }
        !(name in known) { print "  " name ": this kernel has no such option"; bad = 1; next }
        # A later fragment may change its mind.
        { wanted[name] = value }
        END {
            for (name in wanted) {
                got = name in granted ? granted[name] : "n"
                if (got != wanted[name]) { print "  " name ": asked for " wanted[name] ", got " got; bad = 1 }
            }
            exit bad
        }' known granted asked >&2 || fail "the configuration does not hold what the fragments ask for (above)"
}

set -- "$here/fragment.config" "$@"
for fragment in "$@"; do
    [ -r "$fragment" ] || fail "cannot read $fragment"
done

if [ -n "${KERNEL_SOURCE:-}" ]; then
    source=$(cd "$KERNEL_SOURCE" && pwd) || fail "KERNEL_SOURCE=$KERNEL_SOURCE is not a directory"
    [ -f "$source/Kbuild" ] || fail "KERNEL_SOURCE=$KERNEL_SOURCE is not a Linux tree"
    origin="$source $(make -s -C "$source" kernelversion)"
else
    source=
    installed() { dpkg-query -W -f '${Version}' "$package" 2> /dev/null; }
    installed > /dev/null || "$here/packages.sh" kernel
    origin="$package $(installed)" || fail "the package $package is not installed"
fi

key=$( { echo "$origin"; cat "$here/build.sh" "$@"; } | sha256sum | cut -c1-16)
result=$cache/$key
mkdir -p "$cache"
if [ ! -e "$result/vmlinux" ]; then
    "$here/packages.sh" kernel
    # One build of one kernel at a time; a process that waited finds it built.
    exec 9> "$cache/$key.lock"
    flock 9
fi
if [ ! -e "$result/vmlinux" ]; then
    work=$cache/$key.building
    rm -rf "$work"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$work/out" "$work/done"
    log=$cache/$key.log
    step=$here/step.sh

    if [ -z "$source" ]; then
        source=$work/$package
        # The documentation itself is not needed (its Kconfig is).
        "$step" "unpack $origin" tar -xf "/usr/src/$package.tar.xz" -C "$work" --exclude="$package/Documentation/*/*"
    fi
    # The same source and fragments give the same bytes.
    KBUILD_BUILD_TIMESTAMP=$(LC_ALL=C date -u -r "$source/Makefile")
    export KBUILD_BUILD_TIMESTAMP KBUILD_BUILD_USER=coracle KBUILD_BUILD_HOST=coracle
    build() {
        what=$1
        shift
        STEP_LOG=$log "$step" "$what" nice make -C "$source" O="$work/out" ARCH=x86_64 "$@"
    }
    cd "$work"
    cat "$@" > fragments
    build "configure the guest kernel" KCONFIG_ALLCONFIG="$work/fragments" allnoconfig
    verify "$work/out/.config" "$@"
    # One job more than processors: while one waits for its file the others compile.
    build "build the guest kernel (log: $log)" -j"$(($(nproc) + 1))" vmlinux

    strip --strip-all -o done/vmlinux out/vmlinux
    readelf --notes done/vmlinux | grep -q '^ *Xen .*0x0*12)' || fail "the kernel has no PVH entry note"
    cp out/System.map done/System.map
    cp out/.config done/config
    mv -T done "$result"
fi
echo "$result/vmlinux"
