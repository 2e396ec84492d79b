# SPDX-License-Identifier: Apache-2.0 OR MIT
# A system with an init of its own: Debian's systemd up to multi-user.target, without a kernel. A service of ours tells the
# tests how far it is, another does what a test asks for.

root_disk 256M "$PWD/system.sh" systemd systemd-sysv e2fsprogs
