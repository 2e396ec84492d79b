#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# PID 1 of the outer Linux, once `init` has made it: runs the words of /coracle/command, and hands over its status and the
# directory /out. Streams go through ports, by `cat`: a port cannot be opened twice, a pipe can be reopened.
export PATH=/coracle/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
declare -A ports
for port in /sys/class/virtio-ports/*; do
    ports[$(< "$port/name")]=/dev/${port##*/}
done
exec 4> "${ports[status]}"

mapfile -d '' -t words < /coracle/command
limit=$(< /coracle/limit)
set -a
# shellcheck source=/dev/null
. /coracle/environment
set +a
cd /root || exit
# No guest may run on the first processor: QEMU's other processors write its SVM flags, too, without a lock (tests/README.md).
guests_on=1-2
# The limit ends what hangs, and shows where.
watch() {
    local begun=$SECONDS
    timeout --kill-after=10 "$limit" taskset -c "$guests_on" "${words[@]}" < /dev/null 4>&-
    local status=$?
    # The command may have such a status of its own.
    if [ $((SECONDS - begun)) -ge "$limit" ] && { [ "$status" = 124 ] || [ "$status" = 137 ]; }; then
        echo "the command was ended after $limit s; the ends of its guests' consoles:"
        for log in /run/coracle/*/console.log /tmp/*/run/*/console.log; do
            [ -s "$log" ] && { echo "== $log"; tail -n 15 "$log"; }
        done
    fi >&2
    return "$status"
}
echo started >&4
{ watch 2>&1 >&3 3>&- | cat > "${ports[stderr]}"; exit "${PIPESTATUS[0]}"; } 3>&1 | cat > "${ports[stdout]}"
status=${PIPESTATUS[0]}
tar -C /out -cf - . > "${ports[out]}" 2> /dev/console
echo "$status" >&4
# Not a reboot: QEMU then ends in order and writes what it holds.
busybox poweroff -f
