# SPDX-License-Identifier: Apache-2.0 OR MIT
# A server without a configuration file: it listens, saves to /data, and takes SIGTERM for the end.
packages=(redis-server redis-tools busybox)
config=(--config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    --config.user redis --config.workingdir /data --config.exposedports 6379/tcp --config.cmd redis-server)
