#!/usr/bin/env bash
# Holds what the crates must not link: the runtime knows the bundle format and nothing of the compiler, and the compiler,
# as the library that build scripts use, nothing of terminals.
. "$(dirname "$0")/common.sh"

# refuse CRATE WHERE PACKAGE... -- CARGO_TREE_OPTIONS...
refuse() {
    local crate=$1 where=$2 tree packages=()
    shift 2
    while [ "$1" != -- ]; do packages+=("$1"); shift; done
    shift
    tree=$(cargo tree --locked -p "$crate" -e normal --prefix none --no-dedupe "$@")
    for package in "${packages[@]}"; do
        ! grep -q "^$package v" <<<"$tree" || fail "$crate depends on $package ($where)"
    done
    say "$crate ($where) depends on none of: ${packages[*]}"
}

compiler=(egg petgraph kiln-compiler kiln-macros)
# wgpu itself reads WGSL through naga on native devices; in a browser nothing does.
refuse kiln-runtime native "${compiler[@]}" --
refuse kiln-runtime wasm32 "${compiler[@]}" naga -- --no-default-features --target wasm32-unknown-unknown

terminal=(anyhow clap console ctrlc indicatif)
refuse kiln-compiler library "${terminal[@]}" -- --no-default-features
refuse kiln-build library "${terminal[@]}" wgpu --
