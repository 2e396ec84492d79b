#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: runtime.sh TREE
set -eu
tree=$1
echo 'app:x:1000:1000:application:/srv/app:/bin/sh' >> "$tree/etc/passwd"
printf '%s\n' 'app:x:1000:' 'metrics:x:1001:app' >> "$tree/etc/group"

# What the packages' own configuration would have done: the modules compiled, so that a start reads and does not compile.
# By hash and unchecked, because times would be part of the bytes; -B, because what the compiler itself imports would be written
# with times before it, and then left as it is.
chroot "$tree" python3 -B -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3*

# A web server that may bind port 80 as an ordinary user.
install -d -m 755 "$tree/usr/local/bin"
cp "$tree/bin/busybox" "$tree/usr/local/bin/httpd"
setcap cap_net_bind_service=ep "$tree/usr/local/bin/httpd"

# What a later layer deletes.
install -d "$tree/usr/share/only-for-building"
echo 'deleted by a later layer' > "$tree/usr/share/only-for-building/note"
echo 'deleted by a later layer' > "$tree/build.log"
