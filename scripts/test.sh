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
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
# etcd waits for its disk at each write. In memory, what else the machine does with its disk does not decide the tests.
if [ "$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 1000000 ] 2>/dev/null; then
  TMPDIR=/dev/shm
  export TMPDIR
fi
step "lab: the observers see what they are there for"
cargo run --locked --quiet --package keepcall-lab -- selftest --calls 3
# The hold is long against a machine that stands still for a second: what is tried here is that calls are recovered.
for event in power kill-server switchover kill-agent freeze-agent; do
  step "demo: $event"
  KEEPCALL_PROFILE=dev scripts/demo.sh --calls 4 --event "$event" --hold-ms 2000
done

step "tests"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
status=0
# Decisions, which need no root and no other program.
cargo test --locked --no-fail-fast --workspace --lib --bins 2>&1 | tee "$logs/units" || status=$?
# Runs one test program, and shows what it said when it has ended.
run() {
  local name=$1 program=$2 threads=1 log=$logs/$1 started=$SECONDS failed=0
  # Its tests mostly wait, each beside a cluster of its own.
  [ "$name" != etcd_faults ] || threads=2
  "$program" --test-threads="$threads" >"$log" 2>&1 || failed=$?
  { printf '\n-- %s, %d s\n' "$name" $((SECONDS - started)); cat "$log"; } | flock "$logs" cat
  return "$failed"
}
export -f run
export logs
# The test programs of a build, each with its path.
declare -A program=()
built() {
  local name path
  cargo test --locked --no-run "$@" 2>&1 | tee "$logs/build"
  program=()
  while read -r name path; do program[${name%/main}]=$path; done < <(
    sed -n 's|^ *Executable tests/\(.*\)\.rs (\(.*\))$|\1 \2|p' "$logs/build")
  rm "$logs/build"
}
# Runs these two at a time, in this order: each starts programs of its own, and mostly waits.
beside() {
  local name
  for name in "$@"; do printf '%s\0%s\0' "$name" "${program[$name]:?there is no test program $name}"; done |
    xargs -0 -n 2 -P 2 bash -c 'run "$0" "$1"' || status=1
}
built --tests
# What measures milliseconds runs alone; of all else the longest come first, so that none is left over at the end.
alone=(agent_load capture chaos kernel_lease memory relay)
longest=(recovery etcd_faults takeover agent_settings agent_bad_start agent_pause agent_pair)
mapfile -t rest < <(printf '%s\n' "${!program[@]}" | grep -vxF -f <(printf '%s\n' "${alone[@]}" "${longest[@]}") | sort)
beside "${longest[@]}" "${rest[@]}"
for name in "${alone[@]}"; do run "$name" "${program[$name]:?there is no test program $name}" || status=1; done
# The program with faults in it is another one, of which only this crate is built anew; it takes the place of the ordinary one.
built --features faults --test agent_faults --test agent_faults_ears
beside agent_faults_ears agent_faults
cargo test --locked --doc 2>&1 | tee "$logs/doc" || status=$?
# Each test program closes with a line of its own; the sum of them closes the run.
cat "$logs"/* | awk '/^test result:/ { for (i = 1; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
     END { printf "\n%d passed, %d failed\n", p, f; exit (p == 0) }' || status=1
exit "$status"
