# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=sh
# What the driver's actions share; each of them sources it. vmm/docs/opennebula.md describes the driver.
export LC_ALL=C
umask 077
here=${0%/*}
# shellcheck source=../coraclerc
. "$here/../../etc/vmm/coracle/coraclerc"
export XDG_RUNTIME_DIR="$STATE" XDG_DATA_HOME="$STATE/data"

# OpenNebula shows the user what is between the two marks.
fail() {
    printf 'ERROR MESSAGE --8<------\ncoracle: %s\nERROR MESSAGE ------>8--\n' "$1" >&2
    exit 1
}

is_number() {
    case $1 in '' | 0?* | *[!0-9]* | ??????????*) return 1 ;; esac
}

# machine DEPLOY_ID: sets `name`, and waits until no other action works on the machine. Only a name of deploy's shape reaches a
# command line. The status probe takes a locked machine for a running one.
machine() {
    name=one-${1#one-}
    [ "$name" = "$1" ] || name=
    is_number "${name#one-}" || fail "deploy id '$1': expected one-NUMBER"
    mkdir -p "$STATE/coracle" "$STATE/locks" || fail "$STATE: cannot be made"
    exec 9> "$STATE/locks/$name" || fail "$STATE/locks/$name: cannot be made"
    flock -w 120 9 || fail "$name: another action of the driver has not ended in 120 s"
}

# Whether there is a machine of exactly this name. coracle's verbs take a beginning of a name, too: without this check, shutting
# down one-7, which is gone, would shut down one-71.
exists() { [ -d "$STATE/coracle/$name" ] || has_layer; }

# Whether the machine keeps a writable layer, on which it can be started again.
has_layer() { [ -d "$XDG_DATA_HOME/coracle/machines/$name" ]; }

# run VERB...: coracle, with its line for the user if it fails. It gets neither the lock nor the document on standard input.
run() {
    message=$("$CORACLE" "$@" 2>&1 > /dev/null < /dev/null 9>&-) || fail "${message#coracle: }"
}

# Removes the machine and its taps.
remove() {
    if exists; then run rm -f "$name"; fi
    rm -f "$STATE/usage/$name"
    remove_taps || fail "$tap: the tap cannot be removed"
}

# remove_taps: they have the machine's name in front (one-VM_ID-NIC_ID). Sets `tap`.
remove_taps() {
    for path in /sys/class/net/"$name"-*; do
        [ -e "$path/tun_flags" ] || continue
        tap=${path##*/}
        # shellcheck disable=SC2086 # words
        $SUDO ip link delete dev "$tap" 2> /dev/null || return 1
    done
}

# checkpoint FILE: sets `checkpoint` to the snapshot of the machine in the directory of its VM, which OpenNebula moves to other hosts
# and datastores as a whole, and in which it calls this `checkpoint`. Nothing else is written or removed.
checkpoint() {
    base=$(realpath -e "$DATASTORES") || fail "$DATASTORES: not there"
    checkpoint=$(realpath -e "${1%/*}" 2> /dev/null)/${1##*/}
    rest=${checkpoint#"$base"/}
    datastore=${rest%%/*}
    is_number "$datastore" || datastore=
    [ "$checkpoint" = "$base/$datastore/${name#one-}/checkpoint" ] ||
        fail "$name: checkpoint '$1': expected $DATASTORES/DATASTORE_ID/${name#one-}/checkpoint"
}
