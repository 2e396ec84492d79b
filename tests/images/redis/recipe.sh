# SPDX-License-Identifier: Apache-2.0 OR MIT
# A server: forks to save, listens, has a user of its own and a directory for its data. No StopSignal: SIGTERM.

debian_tree "$work/redis.tar" "$PWD/accounts.sh" redis-server redis-tools busybox-static
layer "$work/redis.tar"
configure --config.cmd redis-server --config.cmd --protected-mode --config.cmd no --config.user redis --config.workingdir /data \
    --config.env PATH=/usr/sbin:/usr/bin:/sbin:/bin --config.exposedports 6379/tcp
