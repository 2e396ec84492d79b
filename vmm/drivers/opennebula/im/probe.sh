# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=sh
# What the probes share. OpenNebula calls each at an interval of its own; a use of the CPU is the mean since the last call.
export LC_ALL=C
umask 077
# shellcheck source=../coraclerc
. "${0%/*}/../../../../etc/vmm/coracle/coraclerc"
export XDG_RUNTIME_DIR="$STATE" XDG_DATA_HOME="$STATE/data"

# machines: the names of OpenNebula's machines, running or ended.
machines() {
    for path in "$STATE"/coracle/one-*; do
        case ${path##*/one-} in '' | *[!0-9]*) ;; *) echo "${path##*/}" ;; esac
    done
}

# status NAME: sets `status`. A name that goes meanwhile could be the beginning of another one's: its status has another `id`.
status() {
    status=$("$CORACLE" status --json "$1" 2> /dev/null) && [ "$(value id)" = "$1" ]
}

# value KEY: the first one in the status.
value() { printf '%s\n' "$status" | sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" | head -n 1; }

# sum KEY: over all disks or interfaces.
sum() { printf '%s\n' "$status" | sed -n "s/^ *\"$1\": \([0-9]*\),\{0,1\}$/\1/p" | awk '{ n += $1 } END { printf "%.0f", n }'; }

# rate NAME COUNTER CLOCK: the hundredths of a percent by which the counter grew while the clock did; nothing at the first call.
rate() {
    mkdir -p "$STATE/usage" || return
    read -r old_counter old_clock 2> /dev/null < "$STATE/usage/$1"
    echo "$2 $3" > "$STATE/usage/$1.new" && mv "$STATE/usage/$1.new" "$STATE/usage/$1"
    case $old_counter$old_clock in '' | *[!0-9]*) return ;; esac
    [ "$2" -ge "$old_counter" ] && [ "$3" -gt "$old_clock" ] || return
    echo $((($2 - old_counter) * 10000 / ($3 - old_clock)))
}
