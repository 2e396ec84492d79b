# SPDX-License-Identifier: Apache-2.0 OR MIT
# Loads for disks and networks, for the benchmarks.

debian_tree "$work/fio.tar" true fio iperf3 busybox-static
layer "$work/fio.tar"
configure --config.cmd fio --config.env PATH=/usr/sbin:/usr/bin:/sbin:/bin
