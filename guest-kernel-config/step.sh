#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Usage: step.sh WHAT COMMAND [ARG...]
# Runs COMMAND and prints one line on standard error: WHAT, and the seconds that it took. What COMMAND prints goes to a log,
# whose last lines are shown if it fails. STEP_LOG=FILE keeps the log there.
set -eu
what=$1
shift
if [ -n "${STEP_LOG:-}" ]; then
    log=$STEP_LOG
    : > "$log"
else
    log=$(mktemp "${TMPDIR:-/tmp}/coracle-step.XXXXXX")
    trap 'rm -f "$log"' EXIT
    trap 'exit 1' HUP INT TERM
fi
begun=$(date +%s)
# On a terminal the line is there while the step runs; in a log it comes whole, at its end.
if [ -t 2 ]; then
    printf '%s ...' "$what" >&2
fi
status=0
"$@" > "$log" 2>&1 < /dev/null || status=$?
seconds=$(($(date +%s) - begun))
if [ -t 2 ]; then
    printf '\r' >&2
fi
if [ "$status" -ne 0 ]; then
    echo "$what: failed after $seconds s, status $status" >&2
    tail -n 30 "$log" >&2
    [ -z "${STEP_LOG:-}" ] || echo "$log has the rest" >&2
    exit "$status"
fi
echo "$what: $seconds s" >&2
