#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Debian's redis and what it needs to run: its packages depend on much that only their installation uses.
set -euo pipefail
umask 022
. "$(dirname "$0")/../keep.sh"
cd "$1"

keep . usr/bin/{busybox,redis-server,redis-cli,redis-benchmark,redis-check-rdb}
applets .
folders .
install -d -m 755 -o 999 -g 999 data

cat > etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
redis:x:999:999:redis:/data:/bin/sh
END
cat > etc/group <<'END'
root:x:0:
redis:x:999:
END
ldconfig -r .
rm -rf var/cache/ldconfig
