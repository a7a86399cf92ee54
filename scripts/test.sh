#!/usr/bin/env bash
# Everything that must pass: formatting, lints, all tests, the runtime's dependencies, and the JavaScript
# package in Node and Chromium. Installs what is missing and fetches the two real models first.
. "$(dirname "$0")/common.sh"

need_tools
need_vulkan
scripts/fetch-models.sh

say "Formatting"
cargo fmt --all --check

scripts/check-deps.sh

say "Lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

if ! cargo nextest --version >/dev/null 2>&1; then
    say "Installing cargo-nextest"
    cargo install --locked cargo-nextest || say "No cargo-nextest: plain cargo test will do"
fi
say "Tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast
    # nextest does not run the examples in documentation.
    cargo test --workspace --locked --doc --quiet
else
    cargo test --workspace --locked --no-fail-fast
fi

scripts/test-web.sh --quick || [ $? -eq 3 ]
say "All passed"
