#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: site.sh TREE
set -eu
echo 'www-data:x:33:33:www-data:/var/www:/bin/false' >> "$1/etc/passwd"
echo 'www-data:x:33:' >> "$1/etc/group"
# Perl configures the packages; the rest belongs to a service manager and to editors.
rm -rf "$1"/usr/lib/x86_64-linux-gnu/perl* "$1"/usr/share/perl* "$1"/usr/bin/perl* "$1"/usr/share/debconf "$1"/etc/init.d \
    "$1"/etc/logrotate.d "$1"/etc/ufw "$1"/usr/lib/systemd "$1"/lib/systemd "$1"/usr/share/vim "$1"/usr/share/apport
install -d -m 755 "$1/var/log/nginx" "$1/var/www"
ln -s /dev/stdout "$1/var/log/nginx/access.log"
ln -s /dev/stderr "$1/var/log/nginx/error.log"
cat > "$1/etc/nginx/nginx.conf" <<'NGINX'
user www-data;
worker_processes 1;
error_log /var/log/nginx/error.log;
pid /run/nginx.pid;
events {
    worker_connections 256;
}
http {
    include /etc/nginx/mime.types;
    access_log /var/log/nginx/access.log;
    server {
        listen 80;
        listen [::]:80;
        root /usr/share/nginx/html;
    }
}
NGINX
