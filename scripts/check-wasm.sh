#!/usr/bin/env bash
# Compiles the runtime library for browsers (wasm32-unknown-unknown).
# Usage: scripts/check-wasm.sh [--install]
# Uses rustup's wasm32 library where it is installed, else Debian's rustc-web with its library sources
# (`--install` gets them). Exit code 3 where neither is there: nothing was checked.
. "$(dirname "$0")/common.sh"
. scripts/wasm-common.sh

[ "${1:-}" != --install ] || install_wasm
if has_target || has_sources; then
    say "Compiling the runtime for $target"
    wasm_cargo build --locked --lib -p kiln-runtime --no-default-features
    wasm_cargo build --locked --lib -p kiln-web
    exit
fi
cat >&2 <<'MESSAGE'
************************************************************************
SKIPPED: the runtime was NOT compiled for wasm32-unknown-unknown.
`rustup target add wasm32-unknown-unknown` makes the check possible, as do
Debian's packages rustc-web and rust-web-src.
************************************************************************
MESSAGE
exit 3
