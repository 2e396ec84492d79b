#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: build.sh
# Builds the outer Linux of the nested runner: Debian's cloud kernel, an initramfs with its modules, and a root file system with
# what the tests need. The last line of standard output is the directory that holds vmlinuz, initramfs and root.squashfs. What
# was built once is there at once.
#
# XDG_CACHE_HOME   the cache is under coracle/nested in it (~/.cache).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/nested

# The tests' tools and a C compiler for their guest programs; the peer of the benchmarks; what a person would look for.
packages=dash,bash,hostname,coreutils,util-linux,mount,procps,iproute2,iputils-ping,e2fsprogs,gzip,tar,findutils,grep,sed,mawk,passwd,libc-bin
packages=$packages,gcc,libc6-dev,make,qemu-system-x86,seabios,strace,curl,socat,jq,fio,iperf3,busybox-static,acpica-tools,passt,nftables
packages=$packages,docker-registry,skopeo,openssl,podman,conmon,runc,libxml2-utils
# What the kernel loads for its root, and for the command.
root_modules="virtio_blk squashfs overlay"
kvm_modules="kvm_amd tun veth"
# What `--network bridge` and the rules of the tests need.
nft_modules="bridge nf_tables nft_chain_nat nft_ct nft_fib_inet nft_masq nft_nat"
# What the network bench connects a tap with.
tc_modules="sch_ingress cls_matchall act_mirred"

fail() {
    echo "tests/nested/build.sh: $*" >&2
    exit 1
}

# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$release" ] || fail "/etc/os-release names no Debian release"
kernel=$("$repository/guest-kernel-config/debian-cloud.sh" | tail -n 1)
version=$(ls "$kernel/lib/modules")
key=$( { echo "$release $kernel"; cat "$here/build.sh" "$here/init" "$here/hold_vm.c"; } | sha256sum | cut -c1-16)
result=$cache/$key

# modules LIST MODULE...: these and what they depend on, in the order of loading, whose names go into LIST.
modules() {
    list=$tree/modules/$1
    shift
    for module; do
        PATH=$PATH:/usr/sbin:/sbin modprobe -d "$kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod //p'
    done | awk '!seen[$1]++ { print $1 }' > "$work/files"
    [ -s "$work/files" ] || fail "no modules in $kernel"
    while read -r file; do
        name=$(basename "$file" .xz)
        xz -dc "$file" > "$tree/modules/$name"
        # Without their signatures, which would be verified, and which this kernel has no keys for (tests/xtask: NOT_NEEDED).
        strip --strip-debug "$tree/modules/$name"
        echo "$name" >> "$list"
    done < "$work/files"
}

initramfs() {
    tree=$work/initramfs
    mkdir -p "$tree/bin" "$tree/modules" "$tree/dev" "$tree/proc" "$tree/sys"
    cp /bin/busybox "$tree/bin/busybox"
    # The shell finds these in itself; where it was built otherwise, here.
    for applet in sh cat chown insmod ip ln mkdir mount; do
        ln -s busybox "$tree/bin/$applet"
    done
    install -m 755 "$here/init" "$tree/init"
    gcc -O2 -Wall -Wextra -static -s -o "$tree/bin/hold_vm" "$here/hold_vm.c"
    # shellcheck disable=SC2086
    modules root $root_modules
    # shellcheck disable=SC2086
    modules kvm $kvm_modules $nft_modules $tc_modules
    (cd "$tree" && find . | LC_ALL=C sort | busybox cpio -o -H newc) > "$result.building/initramfs" 2> /dev/null
}

root() {
    # Unpacked and not configured: what configuration would make, the links of `alternatives` above all, is not needed.
    # shellcheck disable=SC2046
    mmdebstrap --quiet --variant=extract --include="$packages" --aptopt='APT::Install-Recommends "false"' \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --skip=cleanup \
        --extract-hook='chroot "$1" ldconfig; ln -sf mawk "$1/usr/bin/awk"; rm -rf "$1"/var/cache/apt "$1"/var/lib/apt "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale
            printf "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n" > "$1/etc/passwd"
            printf "root:x:0:\nnogroup:x:65534:\n" > "$1/etc/group"; echo "127.0.0.1 localhost" > "$1/etc/hosts"; : > "$1/etc/resolv.conf"' \
        "$release" "$work/root.tar" $("$repository/tests/images/debian_sources.sh" "$work") >&2
    # Emulated, decompression would cost more than the bytes.
    mksquashfs - "$result.building/root.squashfs" -tar -noI -noD -noF -noX -quiet -no-progress < "$work/root.tar" >&2
}

if [ ! -d "$result" ]; then
    "$repository/guest-kernel-config/packages.sh" nested
    mkdir -p "$cache"
    # One at a time; a process that waited finds it done.
    exec 9> "$cache/lock"
    flock 9
fi
if [ ! -d "$result" ]; then
    echo "building the outer Linux of the nested runner" >&2
    # Readable for mmdebstrap's other users.
    work=$(mktemp -d "${TMPDIR:-/tmp}/coracle-nested.XXXXXX")
    trap 'rm -rf "$work" "$result.building"' EXIT
    trap 'exit 1' HUP INT TERM
    chmod 755 "$work"
    rm -rf "$result.building"
    mkdir -p "$result.building"
    cp "$kernel/vmlinuz" "$result.building/vmlinuz"
    initramfs
    root
    mv -T "$result.building" "$result"
fi
echo "$result"
