#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: debian_sources.sh FOLDER
# Prints the names of mmdebstrap's source files: the machine's own Debian sources, without those of other vendors; one file
# per format, written into FOLDER.
set -eu
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2> /dev/null |
    grep '^deb .*debian' > "$1/sources.list" && echo "$1/sources.list"
awk -v RS= -v ORS='\n\n' '/(^|\n)URIs:[^\n]*debian/' /etc/apt/sources.list.d/*.sources 2> /dev/null \
    > "$1/debian.sources" && [ -s "$1/debian.sources" ] && echo "$1/debian.sources"
exit 0
