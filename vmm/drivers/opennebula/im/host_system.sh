#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints what the host has: processors in percent of one, their clock in MHz, memory in KiB.
# shellcheck source=probe.sh
. "${0%/*}/../../../lib/coracle-probe.sh"
echo HYPERVISOR=coracle
echo "TOTALCPU=$(($(getconf _NPROCESSORS_ONLN) * 100))"
awk -F: '/^cpu MHz/ { mhz = int($2 + 0.5); exit } END { print "CPUSPEED=" mhz + 0 }' /proc/cpuinfo
awk '/^MemTotal:/ { print "TOTALMEMORY=" $2 }' /proc/meminfo
