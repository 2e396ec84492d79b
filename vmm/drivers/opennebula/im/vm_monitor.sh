#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints what every running machine uses: CPU in percent of one processor, memory in KiB, bytes and requests.
# shellcheck source=probe.sh
. "${0%/*}/../../../lib/coracle-probe.sh"
for name in $(machines); do
    status "$name" || continue
    [ "$(value state)" = running ] || continue
    cpu=$(rate "$name" "$(($(value cpu_vcpu_ns) + $(value cpu_vmm_ns)))" "$(date +%s%N)")
    usage=$(
        [ -z "$cpu" ] || printf 'CPU="%d.%02d"\n' $((cpu / 100)) $((cpu % 100))
        printf 'MEMORY="%d"\n' $(($(value memory_resident_bytes) / 1024))
        printf 'NETRX="%d"\nNETTX="%d"\n' "$(sum rx_bytes)" "$(sum tx_bytes)"
        printf 'DISKRDBYTES="%d"\nDISKWRBYTES="%d"\n' "$(sum read_bytes)" "$(sum write_bytes)"
        printf 'DISKRDIOPS="%d"\nDISKWRIOPS="%d"\n' "$(sum read_requests)" "$(sum write_requests)"
    )
    echo "VM = [ ID=\"${name#one-}\", DEPLOY_ID=\"$name\", MONITOR=\"$(printf '%s\n' "$usage" | base64 -w 0)\" ]"
done
