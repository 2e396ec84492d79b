#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: deb.sh TREE OUTPUT [COMPRESSION]
# Makes a Debian package in the directory OUTPUT of what `make install DESTDIR=TREE PREFIX=/usr` has installed, and prints the
# package's path. The same input gives the same bytes. COMPRESSION is dpkg-deb's (xz).
set -eu
tree=$(realpath "$1")
output=$(realpath "$2")
compression=${3:-xz}
cd "$(dirname "$0")"
repository=$(realpath ../..)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
architecture=amd64
maintainer='Coracle maintainers <coracle@packages.debian.org>'
# The time of the source, not of the build.
: "${SOURCE_DATE_EPOCH:=$(git -C "$repository" log -1 --format=%ct 2> /dev/null || stat -c %Y "$repository/Cargo.toml")}"
export SOURCE_DATE_EPOCH

doc=$tree/usr/share/doc/coracle
install -D -m 644 coracle@.service "$tree/lib/systemd/system/coracle@.service"
install -d "$doc" "$tree/etc/coracle" "$tree/usr/share/lintian/overrides" "$tree/DEBIAN"
cp "$repository"/vmm/docs/*.md "$repository/vmm/openapi.json" "$doc/"
install -D -m 644 -t "$doc/examples" examples/*
chmod 644 "$doc"/*.*
# podman knows the runtime by its name.
conf=etc/containers/containers.conf.d/coracle.conf
install -D -m 644 coracle.conf "$tree/$conf"
echo "/$conf" > "$tree/DEBIAN/conffiles"
find "$tree/usr/share/man" -name '*.1' -exec gzip -9n {} +

{
    echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
    echo 'Upstream-Name: coracle'
    echo 'Comment: vmlinux is built from the source in the Debian package linux-source.'
    echo
    echo 'Files: *'
    echo 'Copyright: 2026 the authors of coracle'
    echo 'License: Apache-2.0 or Expat'
    echo
    echo 'Files: usr/lib/coracle/vmlinux'
    echo 'Copyright: 1991-2026 Linus Torvalds and others'
    echo 'License: GPL-2'
    echo
    echo 'License: Apache-2.0 or Expat'
    echo ' At your choice, the Apache License, version 2.0 (on Debian systems in /usr/share/common-licenses/Apache-2.0), or:'
    echo ' .'
    sed 's/^$/./; s/^/ /' "$repository/LICENSE-MIT"
    echo
    echo 'License: GPL-2'
    echo ' On Debian systems the text is in /usr/share/common-licenses/GPL-2.'
} > "$doc/copyright"

{
    echo "coracle ($version) unstable; urgency=medium"
    echo
    echo '  * See CHANGELOG.md.gz.'
    echo
    echo " -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n > "$doc/changelog.gz"
gzip -9nc "$repository/CHANGELOG.md" > "$doc/CHANGELOG.md.gz"

cat > "$tree/usr/share/lintian/overrides/coracle" << END
# A static, position-independent binary: containers get it as a bind mount, whatever libraries they have.
coracle: shared-library-lacks-prerequisites [usr/bin/coracle]
# A kernel, and a program that runs before there is any library.
coracle: statically-linked-binary [usr/lib/coracle/vmlinux]
coracle: statically-linked-binary [usr/lib/coracle/coracle-init]
END

size=$(du -sk --exclude=DEBIAN "$tree" | cut -f 1)
cat > "$tree/DEBIAN/control" << END
Package: coracle
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $size
Recommends: e2fsprogs, passt
Suggests: podman | docker.io | containerd, crun | runc
Section: admin
Priority: optional
Description: run one container image as one microVM in one process
 coracle starts a container image as a virtual machine of its own on KVM, with
 a Linux kernel that it brings along. Toward its parent the process behaves
 like the container itself: the same streams, the same signals, the same exit
 status. Images come from registries, archives or directories.
END
(cd "$tree" && find usr lib -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
find "$tree" -type d -exec chmod 755 {} +
package=$output/coracle_${version}_$architecture.deb
dpkg-deb --root-owner-group -Z"$compression" --build "$tree" "$package" > /dev/null
echo "$package"
