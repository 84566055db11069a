#!/usr/bin/env bash
# Runs tests that take hours: chaos with real agents, millions of simulated clusters, deep exploration, and the demo's events
# again and again.
#
#   scripts/soak.sh [--part chaos|sim|explore|demo]... [--minutes N] [--seed N] [--rounds N] [--seeds N] [--faults N] [--runs N]
#                   [--logs DIR]
#
# --part     only this part; may be repeated. Default: all four.
# --minutes  each part except explore runs for this long, and the numbers below do not count.
# --seed     the first seed of chaos and sim, printed. Default: from the clock.
# --rounds   rounds of chaos, half of them with 2 agents and half with 3 (200).
# --seeds    simulated clusters (2000000).
# --faults   faults that exploration may place anywhere (2).
# --runs     runs of each of the demo's events (10).
# --logs     directory for the output of every step (a new directory in /tmp).
#
# Chaos and demo need root. Exit code 0 only if every requested part ran and found nothing. The last line is the summary.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "soak: $*" >&2; exit 2; }

parts=() minutes=0 seed=$(date +%s) rounds=200 seeds=2000000 faults=2 runs=10 logs=
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
  --part | --minutes | --seed | --rounds | --seeds | --faults | --runs | --logs) [ $# -ge 2 ] || die "$1 needs a value" ;;
  *) die "unknown argument '$1'; see --help" ;;
  esac
  case $1 in
  --part) case $2 in chaos | sim | explore | demo) parts+=("$2") ;; *) die "unknown part '$2': chaos, sim, explore or demo" ;; esac ;;
  --logs) logs=$2 ;;
  *)
    [[ $2 =~ ^[0-9]+$ ]] || die "$1 needs a number, not '$2'"
    printf -v "${1#--}" %s "$2"
    ;;
  esac
  shift 2
done
[ ${#parts[@]} -gt 0 ] || parts=(sim explore chaos demo)
wants() { [[ " ${parts[*]} " == *" $1 "* ]]; }
if wants chaos || wants demo; then
  [ "$(id -u)" = 0 ] || die "chaos and demo make network namespaces, which need root"
fi
scripts/setup.sh demo
. scripts/cargo-path.sh
: "${logs:=$(mktemp -d /tmp/keepcall-soak-XXXXXX)}"
mkdir -p "$logs"

failures=0 summary=()
say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
wrong() { say "FAILED: $*"; failures=$((failures + 1)); }
# over START COUNT DONE: whether a part has run for its time, or its number of times.
over() {
  if [ "$minutes" -gt 0 ]; then [ $((SECONDS - $1)) -ge $((minutes * 60)) ]; else [ "$3" -ge "$2" ]; fi
}
# Prints the number in a field of a line of JSON.
field() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
# Prints how many tests a cargo run passed; 0 if one failed, so that an empty run counts as a failure, too.
passed() { awk '/^test result: ok/ { p += $4 } /^test result: FAILED/ { f = 1 } END { print f ? 0 : p + 0 }' "$1"; }

say "logs in $logs; parts: ${parts[*]}; first seed $seed"
# As in demo.sh: KEEPCALL_PROFILE=dev takes an unoptimized build, as the tests do.
profile=${KEEPCALL_PROFILE:-release}
if wants chaos || wants demo; then cargo build --profile "$profile" --locked --quiet --workspace --bins; fi
lab=${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}/lab
if wants sim || wants explore; then cargo test --profile "$profile" --locked --quiet --lib --no-run; fi

# One worker per processor, each with seeds of its own, in pieces of a few minutes.
sim() {
  local start=$SECONDS done=0 piece=20000 first workers pids i log
  workers=$(nproc)
  until over "$start" "$seeds" "$done"; do
    pids=()
    # The last piece is smaller.
    [ "$minutes" -gt 0 ] || [ $((done + workers * piece)) -le "$seeds" ] || piece=$(((seeds - done + workers - 1) / workers))
    for ((i = 0; i < workers; i++)); do
      first=$((seed + done + i * piece))
      KEEPCALL_FIRST_SEED=$first KEEPCALL_SEEDS=$((first + piece)) \
        cargo test --profile "$profile" --locked --lib cluster::election::sim::never >"$logs/sim-$first.log" 2>&1 &
      pids+=("$!")
    done
    for ((i = 0; i < workers; i++)); do
      log=$logs/sim-$((seed + done + i * piece)).log
      if ! wait "${pids[i]}" || [ "$(passed "$log")" = 0 ]; then
        wrong "simulation: $(grep -m1 -E 'seed [0-9]+' "$log" || tail -n1 "$log") (in $log)"
      fi
    done
    done=$((done + workers * piece))
    say "sim: $done clusters from seed $seed on"
  done
  summary+=("sim $done clusters")
}

explore() {
  local log=$logs/explore.log
  if ! KEEPCALL_EXPLORE_FAULTS=$faults cargo test --profile "$profile" --locked --lib cluster::election::explore -- --nocapture >"$log" 2>&1; then
    wrong "exploration: $(grep -m1 panicked "$log" || tail -n1 "$log") (in $log)"
  elif [ "$(passed "$log")" = 0 ]; then
    wrong "exploration: no test ran"
  fi
  # A beginning that reached the limit of states prints how many ticks it covered.
  say "explore: $(grep -c '^covered [0-9]' "$log" || true) beginnings covered; $(grep -c '^covered in part' "$log" || true) in part, see $log"
  summary+=("explore with $faults faults: $(passed "$log") passed, $(grep -c '^covered in part' "$log" || true) beginnings in part")
}

chaos() {
  local start=$SECONDS done=0 two=0 asked=0 piece=10 nodes=2 log last
  until over "$start" "$rounds" "$done"; do
    [ "$minutes" -gt 0 ] || [ $((done + piece)) -le "$rounds" ] || piece=$((rounds - done))
    log=$logs/chaos-$done.log
    "$lab" chaos --seed "$seed" --first-round "$done" --rounds $piece --nodes $nodes --keep-logs "$logs/chaos-$done" >"$log" 2>&1 ||
      wrong "chaos: --seed $seed --first-round $done --rounds $piece --nodes $nodes: $(grep -m1 -E 'violation|^lab:' "$log" || tail -n1 "$log") (in $log)"
    last=$(tail -n1 "$log")
    two=$((two + $(echo "$last" | field two_hosts_ms || echo 0) + 0))
    asked=$((asked + $(echo "$last" | field looked_at_ms || echo 0) + 0))
    # Nobody needs the logs of good rounds.
    [[ $last != *'"ok":true'* ]] || rm -rf "$logs/chaos-$done"
    done=$((done + piece))
    say "chaos: $done rounds, $two ms of two hosts in $asked ms"
    nodes=$((5 - nodes))
  done
  summary+=("chaos $done rounds, two hosts $two of $asked ms")
}

demo() {
  local start=$SECONDS done=0 good=0 event log
  until over "$start" "$runs" "$done"; do
    for event in power kill-server switchover kill-agent freeze-agent; do
      log=$logs/demo-$done-$event.log
      if scripts/demo.sh --calls 20 --event $event --keep-logs "$logs/demo-$done-$event" >"$log" 2>&1; then
        good=$((good + 1))
        rm -rf "$logs/demo-$done-$event"
      else
        wrong "demo $event: $(tail -n1 "$log") (in $log)"
      fi
    done
    done=$((done + 1))
    say "demo: $good of $((done * 5)) runs recovered every call"
  done
  summary+=("demo $good of $((done * 5)) runs")
}

for part in "${parts[@]}"; do
  before=$failures
  $part
  say "$part: $((failures - before)) failures"
done
text=$(printf '%s; ' "${summary[@]}")
if [ "$failures" = 0 ]; then
  echo "soak: ok: ${text%; }; seed $seed"
else
  echo "soak: FAILED ($failures): ${text%; }; seed $seed; logs in $logs"
  exit 1
fi
