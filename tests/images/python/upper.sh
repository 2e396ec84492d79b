#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The application's layer: its user, its files, and whiteouts for what it does not want of the layer below.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
layer=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir -p etc usr/share srv/app
cat > etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:application:/srv/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
cat > etc/group <<'END'
root:x:0:
app:x:1000:
data:x:2000:app
nogroup:x:65534:
END
touch usr/share/.wh.doc
install -m 755 "$here/show.py" srv/app/show.py
# The same file under a second name, and a link to it.
ln srv/app/show.py srv/app/where.py
ln -s show.py srv/app/main.py

add() { tar --format=posix --pax-option=delete=atime,delete=ctime --sort=name --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" --no-recursion -f "$layer" "$@"; }
find etc usr srv -type d ! -path srv/app | sort | add -c --owner=0 --group=0 --files-from=-
find etc usr -type f | sort | add -r --owner=0 --group=0 --files-from=-
find srv/app | sort | add -r --owner=1000 --group=1000 --files-from=-
