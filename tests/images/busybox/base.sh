#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# busybox and its applets as hard links in /bin: a command is found without following a link.
set -euo pipefail
umask 022
. "$(dirname "$0")/../keep.sh"
cd "$1"

mv usr/bin/busybox busybox
find . -mindepth 1 -maxdepth 1 ! -name busybox -exec rm -rf {} +
mkdir bin
mv busybox bin/busybox
for applet in $(bin/busybox --list); do
    ln -f bin/busybox "bin/$applet"
done
folders .

cat > etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
nobody:x:65534:65534:nobody:/tmp:/bin/false
END
cat > etc/group <<'END'
root:x:0:
daemon:x:1:
tty:x:5:
nogroup:x:65534:
END
