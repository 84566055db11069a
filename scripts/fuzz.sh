#!/usr/bin/env bash
# Fuzzes the code that reads bytes from strangers: SIP messages, URIs, session descriptions, streams, HEP, and a packet's whole
# way.
#
#   scripts/fuzz.sh [TARGET] [SECONDS]
#
# TARGET   one of `cargo fuzz list`, or `all` (default).
# SECONDS  how long each target runs (60).
#
# Installs cargo-fuzz if it is missing. Compiles with the nightly toolchain if there is one or rustup can install one; else with
# the installed toolchain and RUSTC_BOOTSTRAP=1, because the coverage that guides the fuzzer needs an unstable option. Prints the
# toolchain; KEEPCALL_FUZZ_TOOLCHAIN=NAME chooses another. New inputs go to fuzz/found/<target>, which is not committed; copy those
# worth keeping to fuzz/corpus/<target>, which `cargo test --test plain fuzz_corpus` replays. Exit code 0 only if every target
# ran and found nothing; an input that breaks something is in fuzz/artifacts/<target>.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "fuzz: $*" >&2; exit 2; }

case ${1:-} in -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
target=${1:-all} seconds=${2:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "SECONDS must be a number above 0, not '$seconds'"
. scripts/cargo-path.sh

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

has() { rustup run "$1" rustc --version >/dev/null 2>&1; }
cargo=(cargo)
if [ -n "${KEEPCALL_FUZZ_TOOLCHAIN:-}" ]; then
  has "$KEEPCALL_FUZZ_TOOLCHAIN" || die "no toolchain '$KEEPCALL_FUZZ_TOOLCHAIN': see \`rustup toolchain list\`"
  cargo=(cargo "+$KEEPCALL_FUZZ_TOOLCHAIN")
elif has nightly || { command -v rustup >/dev/null && rustup toolchain install nightly --profile minimal >/dev/null 2>&1; }; then
  cargo=(cargo +nightly)
fi
version=$("${cargo[@]}" --version)
# Nightly takes unstable options without it.
[[ $version == *nightly* ]] || export RUSTC_BOOTSTRAP=1
echo "fuzz: compiling with $version${RUSTC_BOOTSTRAP:+, with unstable options by RUSTC_BOOTSTRAP=1}"

mapfile -t all < <("${cargo[@]}" fuzz list)
[ ${#all[@]} -gt 0 ] || die "\`cargo fuzz list\` names no targets"
if [ "$target" = all ]; then
  targets=("${all[@]}")
else
  [[ " ${all[*]} " == *" $target "* ]] || die "unknown target '$target': ${all[*]}, or all"
  targets=("$target")
fi

# Without a sanitizer the targets run several times faster, and the fuzzed code has nothing unsafe. Overflows and slices out of
# bounds still panic (see fuzz/Cargo.toml), as do the targets' own assertions.
options=(--sanitizer none --release)
broken=0
for name in "${targets[@]}"; do
  printf '\n== %s, %s s\n' "$name" "$seconds"
  mkdir -p "fuzz/found/$name"
  # Limits for one input: nothing here needs a thousandth of 10 s or 1 GiB.
  "${cargo[@]}" fuzz run "${options[@]}" "$name" "fuzz/found/$name" "fuzz/corpus/$name" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1 || broken=$((broken + 1))
done
printf '\n%s targets, %s with findings\n' "${#targets[@]}" "$broken"
[ "$broken" = 0 ]
