#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: install-packages.sh PART...
# Installs the Debian packages that a part of the work needs and that are missing. Quick when everything is there.
set -euo pipefail

packages_of() {
    case $1 in
        # cargo links with gcc.
        build) echo gcc libc6-dev ;;
        # The source package, and what Linux needs to be built (libelf: objtool).
        kernel) echo "linux-source-$(cat "$(dirname "$0")/../guest-kernel-config/version")" \
            make gcc libc6-dev flex bison bc libelf-dev xz-utils ;;
        images) echo mmdebstrap umoci libcap2-bin ;;
        # mke2fs formats the scratch disk of a run.
        run) echo e2fsprogs ;;
        # Guest programs in C, file systems to look into, unshare and prlimit, layers to unpack.
        tests) echo gcc libc6-dev e2fsprogs erofs-utils util-linux gzip git ;;
        *) echo "install-packages.sh: no such part: $1 (build, kernel, images, run, tests)" >&2; exit 2 ;;
    esac
}

wanted=()
for part in "$@"; do
    packages=$(packages_of "$part")
    read -ra packages <<< "$packages"
    wanted+=("${packages[@]}")
done

if ! command -v dpkg-query > /dev/null; then
    echo "install-packages.sh: not a Debian system; needed, under Debian's names: ${wanted[*]}" >&2
    exit 0
fi
missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || { echo "please install as root: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi
echo "installing: ${missing[*]}" >&2
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 "$@" >&2; }
install() { apt install -y --no-install-recommends "${missing[@]}"; }
# Without package lists, or with old ones, the first attempt fails.
install || { apt update && install; } || { echo "install-packages.sh: cannot install ${missing[*]}" >&2; exit 1; }
