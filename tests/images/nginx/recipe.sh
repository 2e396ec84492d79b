# SPDX-License-Identifier: Apache-2.0 OR MIT
# A web server as docker's official image is: a master process as root, workers as www-data, logs on the standard streams, an
# exposed port, and a StopSignal that is not SIGTERM.

debian_tree "$work/nginx.tar" "$PWD/site.sh" nginx busybox-static
layer "$work/nginx.tar"
configure --config.cmd nginx --config.cmd -g --config.cmd 'daemon off;' --config.stopsignal SIGQUIT \
    --config.env PATH=/usr/sbin:/usr/bin:/sbin:/bin --config.exposedports 80/tcp
