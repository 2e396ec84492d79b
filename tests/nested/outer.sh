#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# PID 1 of the outer Linux: prepares what a machine has, runs the words of /coracle/command, and hands over its status and
# the folder /out. Streams go through ports, by `cat`: a port cannot be opened twice, a pipe can be reopened.
export PATH=/coracle/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
ports=/dev/virtio-ports

mkdir -p /dev/pts /dev/shm /run /tmp /var/tmp /out /root
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
# Not on the overlay: a disk image there would be copied.
mount -t tmpfs -o mode=1777,size=90% tmp /tmp
mount -t tmpfs -o mode=1777,size=90% var-tmp /var/tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2> /dev/console
mount -t debugfs debugfs /sys/kernel/debug 2> /dev/console
mkdir -p /dev/net
ip link set lo up
hostname outer
ln -sfn /proc/self/fd /dev/fd
for port in /sys/class/virtio-ports/*; do
    mkdir -p "$ports"
    ln -sf "/dev/${port##*/}" "$ports/$(cat "$port/name")"
done

mapfile -d '' -t words < /coracle/command
limit=$(cat /coracle/limit)
set -a
# shellcheck source=/dev/null
. /coracle/environment
set +a
cd /root || exit
# The limit ends what hangs, and shows where.
watch() {
    timeout --kill-after=10 "$limit" "${words[@]}" < /dev/null
    local status=$?
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        echo "the command was ended after $limit s; the ends of its guests' consoles:"
        for log in /run/coracle/*/console.log /tmp/*/run/*/console.log; do
            [ -s "$log" ] && { echo "== $log"; tail -n 15 "$log"; }
        done
    fi >&2
    return "$status"
}
{ watch 2>&1 >&3 3>&- | cat > "$ports/stderr"; exit "${PIPESTATUS[0]}"; } 3>&1 | cat > "$ports/stdout"
status=${PIPESTATUS[0]}
tar -C /out -cf - . > "$ports/out" 2> /dev/console
echo "$status" > "$ports/status"
# Not a reboot: QEMU then ends in order and writes what it holds.
busybox poweroff -f
