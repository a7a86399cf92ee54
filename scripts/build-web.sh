#!/usr/bin/env bash
# Builds the JavaScript package runtime/js: kiln-web to WebAssembly, wasm-bindgen, wasm-opt, esbuild.
# Usage: scripts/build-web.sh [--install]
# --install gets what is missing: rustup's wasm32 library (else Debian's rustc-web with its library sources), and Node 20 or newer.
# Exit code 3 where something is missing still: nothing was built.
. "$(dirname "$0")/common.sh"
. scripts/web-common.sh
missing() { say "NOT BUILT: $*"; exit 3; }

[ "${1:-}" != --install ] || install_wasm
has_target || has_sources || missing "no WebAssembly library; run scripts/build-web.sh --install"
use_node "$@" || missing "no Node of version 20 or newer; run scripts/build-web.sh --install"

say "Compiling kiln-web (minutes the first time)"
wasm_cargo build --locked --profile web -p kiln-web
built=$(wasm_target_folder)/$target/web/kiln_web.wasm

say "Building the tools"
cargo build --quiet --manifest-path runtime/web/bindgen/Cargo.toml --target-dir "$(target_folder)/bindgen"
(cd runtime/js && npm ci --no-audit --no-fund --silent)

say "Making the package"
"$(target_folder)/bindgen/debug/kiln-web-bindgen" "$built" runtime/js/src/wasm
(cd runtime/js && node_modules/.bin/wasm-opt -Oz src/wasm/kiln_web_bg.wasm -o src/wasm/kiln_web_bg.wasm && node build.mjs && node size.mjs)
