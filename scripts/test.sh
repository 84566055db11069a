#!/usr/bin/env bash
# Tests keepcall.
#
#   scripts/test.sh [--quick]
#
# Without an argument everything: format, lints, documentation, a trial of the lab, a short demo of each event, unit
# tests, and the integration tests on real parts. Needs root (the tests make network namespaces). Installs what is
# missing.
#
# --quick: what to run while working, four minutes on two processors once the dependencies are compiled. Format, lints,
# unit tests (of the election's proofs only the simulation, with few seeds), and the test programs that need no root. As
# root also one takeover, one relay and one election on real parts. Installs nothing.
#
# Both end with a table of what took how long and the number of tests. Exit code 0 only if nothing failed.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=
case ${1:-} in
-h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
--quick) quick=1 ;;
"") ;;
*) echo "test.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "test.sh: more than one argument; see --help" >&2; exit 2; }
root=
[ "$(id -u)" != 0 ] || root=1
if [ -z "$quick" ]; then
  [ "$root" ] || { echo "test.sh: must run as root: the tests make network namespaces" >&2; exit 1; }
  scripts/setup.sh
fi
# shellcheck source=scripts/cargo-path.sh
. scripts/cargo-path.sh

logs=$(mktemp -d)
status=0
export logs
# The table, also when a step ended the run.
finish() {
  local failed=$? passed
  [ "$failed" != 0 ] || failed=$status
  printf '\n== what took how long\n'
  [ ! -f "$logs/times" ] || cat "$logs/times"
  printf '%6d s  in all\n' "$SECONDS"
  # Each test program closes with a line of its own.
  passed=$(cat "$logs"/*.log 2>/dev/null | awk '/^test result:/ {
      for (i = 1; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
    END { printf "%d passed, %d failed", p, f }') || true
  printf '\n%s\n' "$passed"
  case $passed in "0 passed"*) [ "$failed" != 0 ] || failed=1 ;; esac
  [ "$failed" = 0 ] || echo "test.sh: FAILED, see above"
  rm -rf "$logs"
  exit "$failed"
}
trap finish EXIT

# note NAME SECONDS FAILED: a line of the table.
note() {
  local word=
  [ "$3" = 0 ] || word='  FAILED'
  printf '%6d s  %s%s\n' "$2" "$1" "$word" >>"$logs/times"
}
# timed NAME COMMAND...: runs a step whose output is shown as it comes.
timed() {
  local name=$1 started=$SECONDS failed=0
  shift
  printf '\n== %s\n' "$name"
  "$@" || failed=$?
  note "$name" $((SECONDS - started)) "$failed"
  return "$failed"
}
# logged NAME COMMAND...: a step with tests, which are counted.
logged() { timed "$1" shown "$@" || status=1; }
shown() { "${@:2}" 2>&1 | tee "$logs/${1//[^a-z]/-}.log"; }
# run PROGRAM FILTER PATH: the tests of one module of a test program, in a process of their own, so that no module
# disturbs another. FILTER is a module, one test with its module, or "all".
run() {
  local name=$1:$2 threads=1 started=$SECONDS failed=0 log=$logs/$1-${2//:/-}.log names=()
  if [ "$2" = all ]; then name=$1; else
    mapfile -t names < <("$3" --list --format terse | sed -n "s/^\($2\(::.*\)\{0,1\}\): test\$/\1/p")
    [ ${#names[@]} -gt 0 ] || { echo "test.sh: there is no test $2 in $1" >&2; note "$name" 0 1; return 1; }
    names+=(--exact)
  fi
  # Its tests mostly wait, each beside a cluster of its own; those of `plain` wait for nothing.
  case $1:$2 in election:etcd_faults | plain:*) threads=2 ;; esac
  "$3" --test-threads="$threads" "${names[@]}" >"$log" 2>&1 || failed=$?
  {
    printf '\n-- %s, %d s\n' "$name" $((SECONDS - started))
    cat "$log"
    note "$name" $((SECONDS - started)) "$failed"
  } | flock "$logs" cat
  return "$failed"
}
export -f note run
# The test programs of a build, each with its path.
declare -A program=()
build() {
  local name path
  cargo test --locked --no-run "$@" 2>&1 | tee "$logs/build" || return 1
  program=()
  while read -r name path; do program[${name%/main}]=$path; done < <(
    sed -n 's|^ *Executable tests/\(.*\)\.rs (\(.*\))$|\1 \2|p' "$logs/build")
  rm "$logs/build"
}
path() { printf '%s' "${program[$1]:?there is no test program $1}"; }
# The modules of a program; one with tests outside of modules runs as a whole.
modules() {
  local list
  list=$("$(path "$1")" --list --format terse)
  if grep -q '^[^:]*: test$' <<<"$list"; then echo "$1:all"; else
    sed -n "s/^\([^:]*\)::.*: test\$/$1:\1/p" <<<"$list" | sort -u
  fi
}
# alone PROGRAM:MODULE...: one after the other.
alone() {
  local each
  for each in "$@"; do run "${each%%:*}" "${each#*:}" "$(path "${each%%:*}")" || status=1; done
}
# beside PROGRAM:MODULE...: two at a time, in this order.
beside() {
  local each
  for each in "$@"; do printf '%s\0%s\0%s\0' "${each%%:*}" "${each#*:}" "$(path "${each%%:*}")"; done |
    xargs -0 -n 3 -P 2 bash -c 'run "$0" "$1" "$2"' || status=1
}
# The program of keepcall's unit tests, a little optimized: without that the election's simulation and exploration take
# three times as long. Only this one program is compiled so, nothing that it depends on. Of its own accord the compiler
# would leave out assertions and checks for overflow.
units() {
  local path
  path=$(cargo rustc --locked --lib --profile test --message-format=json-render-diagnostics \
    -- -C opt-level=1 -C debug-assertions=on |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1) || return 1
  program[units]=${path:?cargo names no program}
}

timed "format" cargo fmt --all --check
timed "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
# etcd waits for its disk at each write. In memory, what else the machine does with its disk does not decide the tests.
if [ "$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 1000000 ] 2>/dev/null; then
  TMPDIR=/dev/shm
  export TMPDIR
fi

if [ "$quick" ]; then
  # New seeds each time, a twentieth of those of a whole run: what is plainly wrong shows in them.
  seed=$(date +%s)
  KEEPCALL_FIRST_SEED=$seed KEEPCALL_SEEDS=$((seed + 240)) logged "unit tests" \
    cargo test --locked --no-fail-fast --workspace --lib --bins -- \
    --skip cluster::election::explore --skip every_rule_that_is_left_out_is_noticed
  timed "compile the tests" build --test architecture --test plain --test agent --test calls --test election
  alone architecture:all plain:all
  if [ "$root" ]; then
    beside agent:takeover::calls_outlive_a_switchover_the_way_back_and_then_the_death_of_the_host \
      election:cluster::first_election_switchover_unfit_server_and_crash
    alone calls:relay::audio_runs_both_ways_through_an_address_that_comes_after_the_relay_was_armed
  else
    echo "test.sh: takeover, relay and election are left out: they make network namespaces, which needs root"
  fi
  exit "$status"
fi

RUSTDOCFLAGS="-D warnings" timed "documentation" \
  cargo doc --workspace --no-deps --document-private-items --locked --quiet
# By name: --tests would compile the unit tests as well.
names=()
for each in tests/*.rs tests/*/main.rs; do
  each=${each#tests/} each=${each%.rs} each=${each%/main}
  [ "$each" = faults ] || names+=(--test "$each")
done
timed "compile the tests" build "${names[@]}"
timed "compile the unit tests" units
timed "compile the lab" cargo build --workspace --bins --locked
timed "lab: the observers see what they are there for" "${CARGO_TARGET_DIR:-target}/debug/lab" selftest --calls 3
# The hold is long against a machine that stands still for a second: what is tried here is that calls are recovered.
for event in power kill-server switchover kill-agent freeze-agent; do
  KEEPCALL_PROFILE=dev timed "demo: $event" scripts/demo.sh --calls 4 --event "$event" --hold-ms 2000
done

logged "unit tests" "${program[units]}"
logged "unit tests of the lab" cargo test --locked --no-fail-fast --package keepcall-lab --lib --bins
printf '\n== integration tests\n'
# What measures milliseconds runs alone; of all else the longest come first, so that none is left over at the end.
alone=(agent:load calls:capture election:chaos election:kernel_lease memory:all calls:relay)
longest=(calls:recovery election:etcd_faults agent:takeover agent:settings agent:bad_start agent:pause agent:pair)
every=()
for name in "${!program[@]}"; do
  # The unit tests have run.
  [ "$name" != units ] || continue
  mapfile -t -O ${#every[@]} every < <(modules "$name")
done
mapfile -t rest < <(printf '%s\n' "${every[@]}" | grep -vxF -f <(printf '%s\n' "${alone[@]}" "${longest[@]}") | sort)
# Each starts programs of its own, and mostly waits.
beside "${longest[@]}" "${rest[@]}"
alone "${alone[@]}"
# The program with faults in it is another one; it takes the place of the ordinary one.
timed "compile keepcall with faults" build --features faults --test faults
mapfile -t faults < <(modules faults)
beside "${faults[@]}"
logged "documentation tests" cargo test --locked --doc
exit "$status"
