#!/bin/sh
# Measures keepcall.
#
#   scripts/bench.sh failover [--json] [--rounds N] [--heartbeat-ms MS,...] [--events EVENT,...]
#   scripts/bench.sh costs [--json] [--audio-calls N] [--stored-calls N] [--seconds N]
#
# failover: how long a VIP is silent for a client on the LAN, and how long two hosts answer for it, keepcall and keepalived in turn
# on the same hosts. Events: power, stop, switchover, kill-server, kill-agent, freeze-agent.
# costs: memory of the agent with many calls stored, and its processor time while audio runs.
# Needs root. The last line is one JSON object.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
-h | --help | "") sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; [ $# -gt 0 ]; exit ;;
esac
[ "$(id -u)" = 0 ] || { echo "bench: this makes network namespaces, which needs root: sudo $0 $*" >&2; exit 1; }
scripts/setup.sh "$([ "$1" = costs ] && echo demo || echo bench)"
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
cargo build --release --quiet --bin keepcall --example lab >&2
exec "${CARGO_TARGET_DIR:-target}/release/examples/lab" bench "$@"
