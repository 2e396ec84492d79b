#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: accounts.sh TREE
set -eu
echo 'redis:x:999:999:redis:/data:/bin/false' >> "$1/etc/passwd"
echo 'redis:x:999:' >> "$1/etc/group"
install -d -m 750 -o 999 -g 999 "$1/data"
# Its configuration belongs to a service manager; without it redis-server has its own defaults.
rm -rf "$1/etc/redis" "$1/etc/init.d" "$1/etc/default" "$1/usr/lib/systemd" "$1/lib/systemd"
