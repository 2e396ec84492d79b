# SPDX-License-Identifier: Apache-2.0 OR MIT
# Loads for disks, for the benchmarks.

debian_tree "$work/fio.tar" true fio busybox-static
layer "$work/fio.tar"
configure --config.cmd fio --config.env PATH=/usr/sbin:/usr/bin:/sbin:/bin
