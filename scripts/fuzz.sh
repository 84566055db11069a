#!/usr/bin/env bash
# Fuzzes what reads bytes from strangers: SIP messages, URIs, session descriptions, streams, HEP, and the whole way of a packet.
#
#   scripts/fuzz.sh [TARGET] [SECONDS]
#
# TARGET   one of `cargo fuzz list`, or `all` (default).
# SECONDS  how long each target runs (60).
#
# Installs cargo-fuzz if it is missing. Compiles with the nightly toolchain if it is there or can be installed; else with the installed
# one, which then lets its unstable options be used (RUSTC_BOOTSTRAP=1): the coverage that guides the fuzzer needs one of them. It says
# which it uses; KEEPCALL_FUZZ_TOOLCHAIN=NAME chooses. New inputs go to fuzz/found/<target>, which is not committed; what is
# worth keeping is copied to fuzz/corpus/<target>, which `cargo test --test plain fuzz_corpus` replays. Exit code 0 only if every target ran
# and nothing was found; an input that breaks something is in fuzz/artifacts/<target>.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "fuzz: $*" >&2; exit 2; }

case ${1:-} in -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
target=${1:-all} seconds=${2:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "SECONDS has to be a number above 0, not '$seconds'"
. scripts/cargo-path.sh

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

has() { rustup run "$1" rustc --version >/dev/null 2>&1; }
cargo=(cargo)
if [ -n "${KEEPCALL_FUZZ_TOOLCHAIN:-}" ]; then
  has "$KEEPCALL_FUZZ_TOOLCHAIN" || die "there is no toolchain '$KEEPCALL_FUZZ_TOOLCHAIN': rustup toolchain list"
  cargo=(cargo "+$KEEPCALL_FUZZ_TOOLCHAIN")
elif has nightly || { command -v rustup >/dev/null && rustup toolchain install nightly --profile minimal >/dev/null 2>&1; }; then
  cargo=(cargo +nightly)
fi
version=$("${cargo[@]}" --version)
# Only for a compiler that needs it: nightly takes the options as they are.
[[ $version == *nightly* ]] || export RUSTC_BOOTSTRAP=1
echo "fuzz: compiling with $version${RUSTC_BOOTSTRAP:+, unstable options permitted by RUSTC_BOOTSTRAP=1}"

mapfile -t all < <("${cargo[@]}" fuzz list)
[ ${#all[@]} -gt 0 ] || die "cargo fuzz names no targets"
if [ "$target" = all ]; then
  targets=("${all[@]}")
else
  [[ " ${all[*]} " == *" $target "* ]] || die "unknown target '$target': ${all[*]}, or all"
  targets=("$target")
fi

# Without a sanitizer: the program has no unsafe code in what is fuzzed, and is several times faster so. Overflows and slices out of
# bounds panic all the same (see fuzz/Cargo.toml), as do the targets' own assertions.
options=(--sanitizer none --release)
broken=0
for name in "${targets[@]}"; do
  printf '\n== %s, %s s\n' "$name" "$seconds"
  mkdir -p "fuzz/found/$name"
  # 10 s for one input, or 1 GiB: nothing here needs a thousandth of either.
  "${cargo[@]}" fuzz run "${options[@]}" "$name" "fuzz/found/$name" "fuzz/corpus/$name" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1 || broken=$((broken + 1))
done
printf '\n%s targets, %s with findings\n' "${#targets[@]}" "$broken"
[ "$broken" = 0 ]
