#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Prints the state of every machine. The list is complete, so a VM that is not in it is powered off. A machine on which an action
# works, such as one that is restarted, is running.
# shellcheck source=probe.sh
. "${0%/*}/../../../lib/coracle-probe.sh"
printf 'SYNC_STATE=yes\nMISSING_STATE=POWEROFF\n'
for name in $(machines); do
    if [ -e "$STATE/locks/$name" ] && ! flock -n "$STATE/locks/$name" true; then
        state=RUNNING
    else
        status "$name" || continue
        case $(value state) in
            starting | running | paused | stopping) state=RUNNING ;;
            *) state=POWEROFF ;;
        esac
    fi
    echo "VM = [ ID=\"${name#one-}\", DEPLOY_ID=\"$name\", STATE=\"$state\" ]"
done
