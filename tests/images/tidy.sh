#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: tidy.sh TREE
# What every image here has: no documentation, the accounts and directories that base-files and base-passwd would have made when
# they are configured, busybox's applets for what the packages do not bring.
set -eu
tree=$1

rm -rf "$tree"/usr/share/doc "$tree"/usr/share/man "$tree"/usr/share/info "$tree"/usr/share/locale \
    "$tree"/usr/share/lintian "$tree"/usr/share/bug "$tree"/var/lib/dpkg "$tree"/var/lib/apt "$tree"/var/cache \
    "$tree"/var/log "$tree"/etc/apt "$tree"/boot "$tree"/media "$tree"/mnt "$tree"/opt "$tree"/srv \
    "$tree"/usr/share/initramfs-tools "$tree"/tmp/* "$tree"/etc/dpkg "$tree"/etc/fstab "$tree"/lib32 "$tree"/libx32 "$tree"/usr/lib32 "$tree"/usr/libx32

install -d -m 755 "$tree/dev" "$tree/proc" "$tree/sys" "$tree/run" "$tree/etc" "$tree/var"
install -d -m 700 "$tree/root"
install -d -m 1777 "$tree/tmp" "$tree/var/tmp"
cat > "$tree/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
PASSWD
cat > "$tree/etc/group" <<'GROUP'
root:x:0:
tty:x:5:
nogroup:x:65534:
GROUP
for file in hostname hosts resolv.conf; do
    : > "$tree/etc/$file"
done
chmod 644 "$tree"/etc/passwd "$tree"/etc/group "$tree"/etc/host* "$tree"/etc/resolv.conf

busybox=$tree/bin/busybox
for applet in $("$busybox" --list); do
    [ -e "$tree/bin/$applet" ] || [ -L "$tree/bin/$applet" ] || ln -s busybox "$tree/bin/$applet"
done
