#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: system.sh TREE
# What makes a system of installed packages: a name, an identity to be made at the first start, a root without a password.
set -eu
tree=$1
here=$(dirname "$0")

rm -rf "$tree"/usr/share/doc "$tree"/usr/share/man "$tree"/usr/share/info "$tree"/usr/share/locale \
    "$tree"/usr/share/lintian "$tree"/var/lib/apt/lists "$tree"/var/cache/apt "$tree"/var/cache/debconf \
    "$tree"/var/log/* "$tree"/etc/resolv.conf
echo debian-systemd > "$tree/etc/hostname"
: > "$tree/etc/machine-id"
: > "$tree/etc/fstab"
sed -i "s/^root:[^:]*:/root::/" "$tree/etc/passwd"

install -m 755 "$here/report.sh" "$tree/usr/local/sbin/report"
install -m 755 "$here/task.sh" "$tree/usr/local/sbin/task"
install -m 644 "$here/report.service" "$here/task.service" "$tree/etc/systemd/system/"
chroot "$tree" systemctl --quiet enable report.service task.service
