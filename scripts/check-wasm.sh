#!/usr/bin/env bash
# Compiles the runtime library for browsers (wasm32-unknown-unknown).
# Usage: scripts/check-wasm.sh [--install]
# Uses rustup's wasm32 library where it is installed, else Debian's rustc-web with its library sources
# (`--install` gets them). Exit code 3 where neither is there: nothing was checked.
. "$(dirname "$0")/common.sh"
target=wasm32-unknown-unknown
check=(build --locked --lib -p kiln-runtime --no-default-features --target $target)

has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; }
# Debian's compiler with the matching sources, new enough for this workspace.
has_sources() {
    local oldest found
    [ -x /usr/bin/rustc ] && [ -e /usr/lib/rustlib/src/rust/library ] || return 1
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(/usr/bin/rustc --version | cut -d ' ' -f 2)
    printf '%s\n' "$oldest" "$found" | sort --version-sort --check=quiet
}

if [ "${1:-}" = --install ] && ! has_target && ! has_sources; then
    timeout 120 rustup target add $target || (install_packages rustc-web rust-web-src) || true
fi
if has_target; then
    say "Compiling the runtime for $target"
    exec cargo "${check[@]}"
fi
if has_sources; then
    say "Compiling the runtime for $target with Debian's $(/usr/bin/rustc --version)"
    lld=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
    # Its own target folder: sharing one with another rustc rebuilds everything each time.
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$lld \
        exec cargo "${check[@]}" -Zbuild-std=std,panic_abort --target-dir "$(target_folder)/wasm"
fi
cat >&2 <<'MESSAGE'
************************************************************************
SKIPPED: the runtime was NOT compiled for wasm32-unknown-unknown.
`rustup target add wasm32-unknown-unknown` makes the check possible, as do
Debian's packages rustc-web and rust-web-src.
************************************************************************
MESSAGE
exit 3
