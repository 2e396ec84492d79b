# SPDX-License-Identifier: Apache-2.0 OR MIT
# The smallest image: one static binary under many names.

debian_tree "$work/busybox.tar" true busybox-static
layer "$work/busybox.tar"
configure --config.cmd sh --config.env PATH=/usr/sbin:/usr/bin:/sbin:/bin
