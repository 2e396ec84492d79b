# SPDX-License-Identifier: Apache-2.0 OR MIT
# An application in two layers, with a user, a folder and an environment of its own.
packages=(python3 busybox inetutils-ping)
config=(--config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --config.env LANG=C.UTF-8
    --config.env GREETING='Hello from a container image'
    --config.user app --config.workingdir /srv/app
    --config.entrypoint python3 --config.cmd /srv/app/show.py)
