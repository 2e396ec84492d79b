#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints what the host uses: memory in KiB, processors in percent of one, bytes of the interfaces that have a device.
# shellcheck source=probe.sh
. "${0%/*}/../../../lib/coracle-probe.sh"
echo HYPERVISOR=coracle
awk '
    { sub(":", "", $1); kib[$1] = $2 }
    END {
        used = kib["MemTotal"] - kib["MemFree"] - kib["Buffers"] - kib["Cached"]
        printf "USEDMEMORY=%d\nFREEMEMORY=%d\n", used, kib["MemTotal"] - used
    }' /proc/meminfo
total=$(($(getconf _NPROCESSORS_ONLN) * 100))
# Ticks: idle and waiting for a disk, and all. Before the second call the mean since the boot stands in.
idle=$(awk '/^cpu / { print $5 + $6; exit }' /proc/stat)
all=$(awk '/^cpu / { print $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9; exit }' /proc/stat)
share=$(rate host "$idle" "$all")
free=$((total * ${share:-$((idle * 10000 / all))} / 10000))
printf 'FREECPU=%d\nUSEDCPU=%d\n' "$free" $((total - free))
received=0
sent=0
for device in /sys/class/net/*/device; do
    [ -e "$device" ] || continue
    received=$((received + $(cat "${device%device}statistics/rx_bytes")))
    sent=$((sent + $(cat "${device%device}statistics/tx_bytes")))
done
printf 'NETRX=%d\nNETTX=%d\n' "$received" "$sent"
