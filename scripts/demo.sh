#!/bin/sh
# Calls with audio through a floating IP; then their server goes, and the calls go on.
#
#   scripts/demo.sh [--calls N] [--event power|kill-server|switchover] [--heartbeat-ms MS] [--keep-logs DIR] [--json-only]
#
# Needs root: the hosts are network namespaces. Installs what is missing, builds, runs, and takes everything down again.
# The last line is one JSON object; exit code 0 only if every call was recovered.
set -eu
cd "$(dirname "$0")/.."
for option in "$@"; do
    case $option in -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
done
[ "$(id -u)" = 0 ] || { echo "demo: this makes network namespaces, which needs root: sudo $0 $*" >&2; exit 1; }
scripts/setup.sh demo
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
cargo build --release --quiet --bin keepcall --example lab >&2
# Four sockets for each call in the phones, and as many in Asterisk; the usual limit is 1024.
limit=$(ulimit -Hn)
{ [ "$limit" != unlimited ] && [ "$limit" -le 65536 ]; } || limit=65536
ulimit -n "$limit"
exec "${CARGO_TARGET_DIR:-target}/release/examples/lab" demo "$@"
