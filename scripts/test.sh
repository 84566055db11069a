#!/usr/bin/env bash
# Runs every test of keepcall: format, lints, documentation, a short demo of each event, unit and integration tests on real
# parts. Needs root (the tests make network namespaces). Installs what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "test.sh: must run as root: the tests make network namespaces" >&2; exit 1; }
scripts/setup.sh
# shellcheck disable=SC1091
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --check
step "lints"
cargo clippy --all-targets --locked -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked --quiet
# etcd waits for its disk at each write. In memory, what else the machine does with its disk does not decide the tests.
if [ "$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 1000000 ] 2>/dev/null; then
  TMPDIR=/dev/shm
  export TMPDIR
fi
step "lab: the observers see what they are there for"
cargo run --locked --quiet --example lab -- selftest --calls 3
# The hold is long against a machine that stands still for a second: what is tried here is that calls are recovered.
for event in power kill-server switchover kill-agent freeze-agent; do
  step "demo: $event"
  KEEPCALL_PROFILE=dev scripts/demo.sh --calls 4 --event "$event" --hold-ms 2000
done

step "tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --locked --no-fail-fast --lib --bins --examples 2>&1 | tee "$log" || status=$?
# One at a time: each starts programs of its own, which would stall the other's on a small machine. Only the faults of etcd are
# mostly waiting.
one_by_one=()
for file in tests/*.rs; do
  name=$(basename "$file" .rs)
  case $name in etcd_faults | agent_faults*) continue ;; esac
  one_by_one+=(--test "$name")
done
cargo test --locked --no-fail-fast "${one_by_one[@]}" -- --test-threads=1 2>&1 | tee -a "$log" || status=$?
cargo test --locked --no-fail-fast --test etcd_faults 2>&1 | tee -a "$log" || status=$?
# The program with faults in it is another one, of which only this crate is built anew.
cargo test --locked --no-fail-fast --features faults --test agent_faults --test agent_faults_ears -- --test-threads=1 2>&1 | tee -a "$log" || status=$?
cargo test --locked --doc 2>&1 | tee -a "$log" || status=$?
# Each test binary closes with a line of its own; the sum of them closes the run.
awk '/^test result:/ { for (i = 1; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
     END { printf "\n%d passed, %d failed\n", p, f; exit (p == 0) }' "$log" || status=1
exit "$status"
