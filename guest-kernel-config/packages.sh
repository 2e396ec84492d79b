#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: packages.sh PURPOSE...
# Installs the Debian packages that a purpose needs and that are missing. The one list of them.
set -eu
cd "$(dirname "$0")"

wanted=
for purpose in "$@"; do
    case $purpose in
        # cargo links with gcc.
        build) names="gcc libc6-dev" ;;
        # The source package, and what Linux needs to be built (libelf: objtool).
        kernel) names="linux-source-$(cat version) make gcc libc6-dev flex bison bc libelf-dev xz-utils" ;;
        # depmod.
        debian-cloud) names="kmod xz-utils" ;;
        # The emulator and the outer Linux's root file system.
        nested) names="qemu-system-x86 seabios busybox-static kmod xz-utils mmdebstrap squashfs-tools gcc libc6-dev" ;;
        images) names="mmdebstrap umoci libcap2-bin e2fsprogs" ;;
        # mke2fs formats the scratch disk of a run.
        run) names="e2fsprogs" ;;
        # Guest programs in C, limits and mounts around the binary, layers to count.
        tests) names="gcc libc6-dev e2fsprogs util-linux gzip" ;;
        *) echo "packages.sh: no purpose is called '$purpose': build, kernel, debian-cloud, nested, images, run, tests" >&2; exit 2 ;;
    esac
    wanted="$wanted $names"
done

if ! command -v dpkg-query > /dev/null; then
    echo "packages.sh: not a Debian system; needed, under Debian's names:$wanted" >&2
    exit 0
fi

missing=
for name in $wanted; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2> /dev/null)" = installed ] || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
    if ! command -v sudo > /dev/null; then
        echo "packages.sh: missing, and there is no sudo to install them: apt-get install$missing" >&2
        exit 1
    fi
fi
# The words are package names. Standard output belongs to the callers' last lines.
# shellcheck disable=SC2086
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 \
        install -y --no-install-recommends $missing >&2
}
echo "installing:$missing" >&2
# Without lists, or with old ones, the first attempt fails.
install || { $as_root apt-get -q -o DPkg::Lock::Timeout=600 update >&2 && install; }
