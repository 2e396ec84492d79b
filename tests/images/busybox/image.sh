# SPDX-License-Identifier: Apache-2.0 OR MIT
# The smallest thing that is a system: one static program under many names.
packages=(busybox-static)
config=(--config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --config.cmd sh)
