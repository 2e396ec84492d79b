# SPDX-License-Identifier: Apache-2.0 OR MIT
# To be sourced: what the images' `base.sh` have in common.

# keep ROOT PATH...: of everything below ROOT, only these files and folders, what they are links to, and the shared
# libraries that they need stay. Paths are relative to ROOT, which has busybox and the dynamic loader.
keep() {
    local root=$1 list
    shift
    list=$(mktemp)
    (
        cd "$root"
        find "$@" -type f -perm /111 -o -name '*.so*' -type f | while read -r file; do
            chroot . /lib64/ld-linux-x86-64.so.2 --list "/$file" 2> /dev/null || true
        done | sed -n 's/.*[[:blank:]]\(\/[^ ]*\) (0x.*/\1/p' | sort -u | while read -r library; do
            echo "${library#/}"
            chroot . /bin/busybox realpath "$library" | cut -c 2-
        done
        printf '%s\n' bin sbin lib lib64 "$@"
    ) > "$list"
    mkdir "$root/kept"
    mkdir -p "$root"/kept/usr/{bin,sbin,lib,lib64}
    tar -C "$root" -c --files-from="$list" | tar -C "$root/kept" -x --keep-directory-symlink
    rm "$list"
    find "$root" -mindepth 1 -maxdepth 1 ! -name kept -exec rm -rf {} +
    mv "$root"/kept/* "$root"
    rmdir "$root/kept"
}

# folders ROOT: what every image has, filled or not.
folders() {
    (
        cd "$1"
        mkdir -p dev proc sys run etc tmp var/tmp
        chmod 1777 tmp var/tmp
        mkdir -p -m 700 root
    )
}

# applets ROOT: busybox's applets as links in /bin where no package brings that command.
applets() {
    local applet
    for applet in $(chroot "$1" /bin/busybox --list); do
        [ -e "$1/usr/bin/$applet" ] || [ -e "$1/usr/sbin/$applet" ] || ln -s busybox "$1/usr/bin/$applet"
    done
}
