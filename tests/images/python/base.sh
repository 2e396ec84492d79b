#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Debian's Python with its whole library, compiled, and its documentation, which the layer above removes.
set -euo pipefail
umask 022
. "$(dirname "$0")/../keep.sh"
cd "$1"

keep . usr/bin/busybox usr/bin/python3* usr/bin/ping usr/lib/python3* usr/share/doc etc/python3*
rm -rf usr/lib/python3*/config-*
applets .
folders .

cat > etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
cat > etc/group <<'END'
root:x:0:
nogroup:x:65534:
END
# No time stamps in the compiled files: they stay valid whatever becomes of the times, and the bytes stay the same.
PYTHONHASHSEED=0 chroot . /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash -d / /usr/lib/python3* || true
ldconfig -r .
rm -rf var/cache/ldconfig
# A file with a capability, as Debian's own installation sets it.
setcap cap_net_raw=ep usr/bin/ping
