#!/usr/bin/env bash
# Holds the invariant that the runtime knows the bundle format and nothing of the compiler: what it links
# has neither the compiler nor what only the compiler needs.
. "$(dirname "$0")/common.sh"

# refuse WHERE PACKAGE... -- CARGO_TREE_OPTIONS...
refuse() {
    local where=$1 tree packages=()
    shift
    while [ "$1" != -- ]; do packages+=("$1"); shift; done
    shift
    tree=$(cargo tree --locked -p kiln-runtime -e normal --prefix none --no-dedupe "$@")
    for package in "${packages[@]}"; do
        ! grep -q "^$package v" <<<"$tree" || fail "kiln-runtime depends on $package ($where)"
    done
    say "kiln-runtime ($where) depends on none of: ${packages[*]}"
}

# wgpu itself reads WGSL through naga on native devices; in a browser nothing does.
refuse native egg petgraph kiln-compiler kiln-macros --
refuse wasm32 egg petgraph kiln-compiler kiln-macros naga -- --no-default-features --target wasm32-unknown-unknown
