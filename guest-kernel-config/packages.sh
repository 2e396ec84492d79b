#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: packages.sh PURPOSE...
# Installs the missing Debian packages of each purpose. The only list of packages in this repository.
set -eu
cd "$(dirname "$0")"

# The step that packages.sh runs itself with.
now=
if [ "${1:-}" = --install-now ]; then
    now=1
    shift
fi

wanted=
for purpose in "$@"; do
    case $purpose in
        # cargo links with gcc; the binary is static: libc.a.
        build) names="gcc libc6-dev" ;;
        # The source package, and what Linux needs to be built (libelf: objtool).
        kernel) names="linux-source-$(cat version) make gcc libc6-dev flex bison bc libelf-dev xz-utils" ;;
        # depmod.
        debian-cloud) names="kmod xz-utils" ;;
        # The outer Linux's root file system; tests/nested/qemu.sh finds the emulator, or installs it.
        nested) names="busybox-static kmod xz-utils mmdebstrap squashfs-tools gcc libc6-dev" ;;
        emulator) names="qemu-system-x86 seabios" ;;
        images) names="mmdebstrap umoci libcap2-bin e2fsprogs" ;;
        # mke2fs formats the scratch disk of a run; passt is the network without privileges, nft writes the rules of a bridge.
        run) names="e2fsprogs passt nftables" ;;
        # Guest programs in C, limits, mounts and networks around the binary, layers to count, a registry to pull from, a DHCP server,
        # socat, xmllint for the OpenNebula driver, and VFAT disks for --context.
        tests)
            names="gcc libc6-dev e2fsprogs passt nftables util-linux iproute2 gzip docker-registry skopeo openssl busybox-static socat"
            names="$names libxml2-utils dosfstools mtools"
            ;;
        # What `cargo xtask bench images` measures beside coracle, or with.
        bench) names="docker-registry e2fsprogs erofs-utils gzip skopeo squashfs-tools strace umoci zstd" ;;
        # What tests/end_to_end/engines.rs runs; without them its tests are skipped.
        engines) names="podman conmon runc" ;;
        # Besides, for podman's own system tests: a network, and buildah for one of them.
        podman-tests) names="bats buildah dpkg-dev iproute2 iptables jq netavark" ;;
        # The package of `make deb`, and its check.
        deb) names="dpkg lintian" ;;
        *) echo "packages.sh: unknown purpose '$purpose': the purposes are build, kernel, debian-cloud, nested, emulator, images, run, tests, bench, engines, podman-tests, deb" >&2; exit 2 ;;
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
# An install never removes a package: if it had to, it fails and says so. The words of $missing are package names.
# shellcheck disable=SC2086
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 \
        install -y --no-install-recommends --no-remove $missing
}
# Without lists, or with old ones, the first attempt fails.
update_and_install() {
    install || { $as_root apt-get -q -o DPkg::Lock::Timeout=600 update && install; }
}
if [ -n "$now" ]; then
    update_and_install
    exit
fi
./step.sh "install$missing" ./packages.sh --install-now "$@"
