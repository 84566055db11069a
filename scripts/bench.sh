#!/bin/sh
# Measures keepcall.
#
#   scripts/bench.sh failover [--json] [--rounds N] [--heartbeat-ms MS,...] [--events EVENT,...]
#   scripts/bench.sh costs [--json] [--audio-calls N] [--stored-calls N] [--seconds N]
#   scripts/bench.sh arm [--json] [--calls N] [--rounds N] [--renew-ms MS]
#   scripts/bench.sh relay [--json] [--rounds N] [--packets N]
#   scripts/bench.sh learn [--json] [--memory] [--capture] [--stored] [--live] [--rounds N] [--capture-calls N] [--rate N] [--seconds N] [--no-audio]
#
# failover: how long the VIP is silent for a client on the LAN, and for how long two hosts answer for it, with keepcall and
# keepalived in turn on the same hosts. Events: power, stop, switchover, kill-server, kill-agent, freeze-agent.
# costs: memory of the agent with many stored calls, and processor time while audio runs.
# arm: how long a renewal of the kernel lease waits while the relay arms, changes, takes over and removes 10,000 calls, and
# fences open, close and are taken over.
# relay: processor time of a packet through the relay, with and without the relay's check of the packet.
# learn: messages per second through parser and tracker; the same capture file read by keepcall and sngrep in turn; memory of
# a stored call; the agent on a live wire with 1,000 calls up and their audio. Default: all four.
# Needs root. The last line is one JSON object.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
-h | --help | "") sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; [ $# -gt 0 ]; exit ;;
esac
[ "$(id -u)" = 0 ] || { echo "bench: network namespaces need root: sudo $0 $*" >&2; exit 1; }
case "$1" in
costs) scripts/setup.sh demo ;;
learn) scripts/setup.sh learn ;;
arm | relay) command -v nft >/dev/null || { echo "bench: nft is missing; install the package nftables" >&2; exit 1; } ;;
*) scripts/setup.sh bench ;;
esac
. scripts/cargo-path.sh
# KEEPCALL_PROFILE=dev measures an unoptimized build, for work on the benchmark itself.
profile=${KEEPCALL_PROFILE:-release}
case "$profile" in dev) folder=debug ;; *) folder=$profile ;; esac
cargo build --profile "$profile" --quiet --workspace --bins >&2
exec "${CARGO_TARGET_DIR:-target}/$folder/lab" bench "$@"
