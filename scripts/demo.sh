#!/bin/sh
# Calls with audio through a floating IP lose their server, and continue.
#
#   scripts/demo.sh [--calls N] [--event power|kill-server|switchover|kill-agent|freeze-agent] [--heartbeat-ms MS] [--hold-ms MS]
#                   [--keep-logs DIR] [--json-only]
#   scripts/demo.sh --calls-of all
#
# With --calls-of all: one call of every class, behind Asterisk, Kamailio, and Kamailio with rtpengine. Prints what `keepcall
# calls` said of each before its server lost power, and what its parties have afterwards.
#
# The hold is four heartbeats. On a machine that stalls for longer, set a longer hold, or the stall looks like a dead master.
#
# Needs root: the hosts are network namespaces. Installs missing packages, builds, runs, and removes the LAN again.
# The last line is one JSON object; exit code 0 only if every call was recovered.
set -eu
cd "$(dirname "$0")/.."
for option in "$@"; do
    case $option in -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
done
[ "$(id -u)" = 0 ] || { echo "demo: network namespaces need root: sudo $0 $*" >&2; exit 1; }
scripts/setup.sh demo
. scripts/cargo-path.sh
# KEEPCALL_PROFILE=dev takes an unoptimized build, as the tests do.
profile=${KEEPCALL_PROFILE:-release}
echo "demo: building keepcall (a few minutes the first time)" >&2
cargo build --profile "$profile" --locked --quiet --workspace --bins >&2
# Each call needs four sockets in the phones and four in Asterisk; the usual limit is 1024.
limit=$(ulimit -Hn)
{ [ "$limit" != unlimited ] && [ "$limit" -le 65536 ]; } || limit=65536
ulimit -n "$limit"
[ "$profile" != dev ] || profile=debug
exec "${CARGO_TARGET_DIR:-target}/$profile/lab" demo "$@"
