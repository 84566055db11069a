#!/bin/sh
# Installs what is missing of the Debian 12 packages that keepcall's scripts use, and Rust. Quiet if nothing is.
#
#   scripts/setup.sh [build|demo|bench|learn|test|all]
#
# build: compile keepcall. demo: build, and run the demo. bench, learn: build, and run the benchmarks. test, all: everything.
set -eu

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

# etcd-client compiles its protocol files: protoc, and google/protobuf/*.proto from libprotobuf-dev.
build="build-essential pkg-config ca-certificates curl protobuf-compiler libprotobuf-dev"
lab="iproute2 nftables etcd-server etcd-client"
# Of the demo, beside the lab. Debian 12 has no asterisk; it comes from Debian 11, see below.
asterisk="asterisk"

case "${1:-all}" in
build) wanted=$build ;;
demo) wanted="$build $lab $asterisk" ;;
bench) wanted="$build $lab keepalived" ;;
learn) wanted="$build $lab sngrep" ;;
test | all) wanted="$build $lab $asterisk keepalived kamailio kamailio-tls-modules kamailio-websocket-modules rtpengine-daemon redis-server baresip-core sip-tester tcpdump tshark strace" ;;
*) die "unknown part '$1': build, demo, bench, learn, test or all" ;;
esac

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=
for package in $wanted; do
    is_installed "$package" || missing="$missing $package"
done

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || die "these Debian packages are missing, and there is no apt-get:$missing"
    [ "$(id -u)" = 0 ] || die "these packages are missing; run this as root to install them:$missing"
    say "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive

    # The packages start their daemons when they are installed; the lab starts its own, so none shall run here.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi

    others=
    for package in $missing; do
        [ "$package" = asterisk ] || others="$others $package"
    done
    case " $missing " in
    *" asterisk "*)
        # Priority 100 is below the 500 of Debian 12: nothing else is ever taken from Debian 11.
        if ! grep -qrs '^[^#]*debian.* bullseye ' /etc/apt/sources.list /etc/apt/sources.list.d; then
            echo 'deb http://deb.debian.org/debian bullseye main' >/etc/apt/sources.list.d/keepcall-bullseye.list
        fi
        printf 'Package: *\nPin: release n=bullseye\nPin-Priority: 100\n' >/etc/apt/preferences.d/keepcall-bullseye
        ;;
    esac

    log=$(mktemp)
    quietly() {
        "$@" >"$log" 2>&1 || {
            cat "$log" >&2
            rm -f "$log"
            die "'$*' failed; its output is above"
        }
    }
    quietly apt-get update -q
    # shellcheck disable=SC2086 # a list of names
    [ -z "$others" ] || quietly apt-get install -qy --no-install-recommends $others
    case " $missing " in
    *" asterisk "*) quietly apt-get install -qy --no-install-recommends asterisk/bullseye ;;
    esac
    rm -f "$log"
fi

# Rust: Debian 12 has 1.63; the version that is needed is in Cargo.toml.
root=$(cd "$(dirname "$0")/.." && pwd)
need=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
# shellcheck source=scripts/cargo-path.sh
. "$root/scripts/cargo-path.sh"
found() { cargo --version 2>/dev/null || echo missing; }
rust_is_new_enough() {
    have=$(found | sed 's/^cargo \([0-9.]*\).*/\1/')
    [ "$have" != missing ] && [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" = "$need" ]
}
if ! rust_is_new_enough; then
    say "Rust $need or newer is needed, and cargo is $(found)"
    if command -v rustup >/dev/null; then
        say "installing the stable Rust with rustup"
        rustup toolchain install stable --profile minimal >&2 && rustup default stable >&2 || say "rustup failed"
    else
        say "installing Rust with rustup's installer, https://sh.rustup.rs, into ${CARGO_HOME:-$HOME/.cargo}"
        installer=$(mktemp)
        if curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs -o "$installer"; then
            sh "$installer" -y --profile minimal --component rustfmt,clippy >&2 || say "rustup's installer failed"
        else
            say "cannot download rustup's installer"
        fi
        rm -f "$installer"
    fi
    rust_is_new_enough || die "cargo is still $(found). Install Rust $need or newer by other means, and run this again"
fi
case "${1:-all}" in
test | all)
    for tool in fmt clippy; do
        cargo $tool --version >/dev/null 2>&1 && continue
        say "cargo $tool is missing: installing it with rustup"
        component=clippy
        [ $tool = clippy ] || component=rustfmt
        rustup component add $component >&2 || die "cargo $tool is missing, and rustup cannot install it"
    done
    ;;
esac
