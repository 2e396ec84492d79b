#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: report start|stop
# Says on the console that the system is up, or goes down, and for which time: starts and stops are counted on the disk.
set -u
directory=/var/lib/report
mkdir -p "$directory"

count() {
    echo >> "$directory/$1"
    wc -l < "$directory/$1"
}

case $1 in
    start) echo "report: multi-user.target reached, start $(count starts)" > /dev/console ;;
    stop) echo "report: stop $(count stops)" > /dev/console ;;
esac
