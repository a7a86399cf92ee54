#!/usr/bin/env bash
# Tests the JavaScript package in headless Chromium, Node, Deno and Bun on software devices: SwiftShader (no f16) and, where
# it can be had, Mesa's lavapipe (f16). Builds the package, makes a toy bundle and asks the native runtime for its tokens.
# Usage: scripts/test-web.sh [--quick]     --quick: lavapipe only, in Node and Chromium
# What a machine lacks is skipped, loudly. scripts/test.sh runs the quick ones: all of them take 10 minutes on two cores, most of it
# software devices that compile kernels.
. "$(dirname "$0")/common.sh"
. scripts/web-common.sh
quick=${1:-}
skip() {
    printf '%s\n' '************************************************************************' "SKIPPED: $*" \
        '************************************************************************' >&2
    skipped+=("$*")
}
skipped=()
failed=()

scripts/build-web.sh --install || { [ $? -eq 3 ] && skip "the web tests: the package was not built" && exit 3; }
use_node

work=$(target_folder)/web-test
mkdir -p "$work"

say "Making the toy bundles, and their tokens by the native runtime"
cargo build --quiet -p kiln-compiler -p kiln-runtime --bins
bin=$(target_folder)/debug
[ ! -d "$work/toy.kiln" ] || rm -r "$work/toy.kiln"
"$bin/compile-model" codegen-tests/fixtures/llama-A-f32 -o "$work/toy.kiln" >/dev/null
[ ! -d "$work/big.kiln" ] || rm -r "$work/big.kiln"
"$bin/compile-model" runtime/js/test/big.config.json --random-weights 1 -o "$work/big.kiln" >/dev/null
"$bin/run-model" generate "$work/toy.kiln" --ids 1,2,3,4,5,6,7 --max-tokens 24 --json 2>/dev/null |
    python3 -c 'import json, sys; d = json.load(sys.stdin); print(json.dumps({"prompt": d["prompt_ids"], "ids": d["ids"]}))' \
        >"$work/expected.json"
rm -f "$work/session"
"$bin/run-model" generate "$work/toy.kiln" --ids 1,2,3,4,5,6,7 --max-tokens 8 --session "$work/session" >/dev/null 2>&1
export KILN_SESSION=$work/session KILN_RUN_MODEL=$bin/run-model KILN_TOY=$work/toy.kiln

# Chromium brings SwiftShader with it.
if ! [ -x /usr/bin/chromium ]; then
    (install_packages chromium libvulkan1) || skip "Chromium is not installed (apt install chromium)"
fi
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json

# lavapipe: Dawn refuses Debian 12's Mesa 22.3; the newer one of its backports is unpacked, not installed. Chromium takes it only
# through a Vulkan layer that calls it a GPU.
fetch_lavapipe() {
    [ ! -e "$work/mesa/lavapipe.json" ] || return 0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local installed
    installed=$(dpkg-query --show --showformat '${Version}' mesa-vulkan-drivers 2>/dev/null || true)
    if dpkg --compare-versions "${installed:-0}" ge 24; then
        mkdir -p "$work/mesa"
        cp /usr/share/vulkan/icd.d/lvp_icd*.json "$work/mesa/lavapipe.json"
        return
    fi
    local lists mirror codename
    lists=$(mktemp -d)
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$work/mesa"
    # The mirror that this machine uses.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort -u | head -n 1)
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    echo "deb $mirror $codename-backports main" >"$lists/sources.list"
    local apt=(apt-get -q -o Dir::Etc::sourcelist="$lists/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$lists/lists"
        -o Dir::Cache="$lists/cache" -o APT::Sandbox::User=root)
    "${apt[@]}" update >&2 && (cd "$lists" && "${apt[@]}" download "mesa-vulkan-drivers/$codename-backports" >&2) || return 1
    dpkg-deb -x "$lists"/mesa-vulkan-drivers_*.deb "$lists/unpacked"
    cp "$lists/unpacked/usr/lib/$(gcc -dumpmachine)/libvulkan_lvp.so" "$work/mesa/"
    echo "{\"file_format_version\":\"1.0.0\",\"ICD\":{\"api_version\":\"1.4.305\",\"library_path\":\"$work/mesa/libvulkan_lvp.so\"}}" \
        >"$work/mesa/lavapipe.json"
    rm -r "$lists"
}
build_layer() {
    local layer=test/vulkan-layer
    mkdir -p "$work/layer"
    [ -e /usr/include/vulkan/vulkan.h ] || (install_packages libvulkan-dev) || return 1
    gcc -O2 -shared -fPIC -o "$work/layer/libVkLayer_fakegpu.so" "$layer/fakegpu.c" &&
        sed "s#@DIR@#$work/layer#" "$layer/fakegpu.json.in" >"$work/layer/fakegpu.json"
}
drivers=()
if fetch_lavapipe; then drivers+=(lavapipe); else skip "lavapipe: no Mesa of version 24 or newer can be had, so nothing tests f16"; fi
if [ "$quick" != --quick ] && [ -e "$swiftshader" ]; then drivers+=(swiftshader); fi
export KILN_LAVAPIPE=$work/mesa/lavapipe.json KILN_VULKAN_LAYER=$work/layer XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}

cd runtime/js
run() { "$@" || failed+=("$*"); }

say "Tokenizer, templates and channels"
run env TZ=UTC node --test test/text.test.mjs test/channels.test.mjs

rm -f "$work/url"
node test/serve.mjs "$work/toy.kiln" "$work/big.kiln" "$work/url" &
server=$!
trap 'kill $server' EXIT
until [ -s "$work/url" ]; do sleep 0.1; done

# in_host DRIVER own|dawn CASES COMMAND...: the cases in a host (all, where CASES is empty), on a Vulkan driver.
in_host() {
    local driver=$1 webgpu=$2 cases=$3 icd=$swiftshader
    shift 3
    [ "$driver" != lavapipe ] || icd=$KILN_LAVAPIPE
    say "$* on $driver"
    run env VK_DRIVER_FILES="$icd" VK_ICD_FILENAMES="$icd" DENO_NO_UPDATE_CHECK=1 \
        "$@" test/host.mjs "$(cat "$work/url")" "$work/expected.json" "$webgpu" "$cases"
}
deno=(node_modules/.bin/deno run -A --node-modules-dir=manual)
for driver in "${drivers[@]}"; do
    # SwiftShader needs seconds for each load: there the generation is enough.
    cases=
    [ "$driver" = lavapipe ] || cases='every variant'
    in_host "$driver" own "$cases" node
    if [ "$quick" != --quick ]; then
        in_host "$driver" own "$cases" node_modules/.bin/bun
        in_host "$driver" own "$cases" "${deno[@]}"
        in_host "$driver" dawn 'every variant' "${deno[@]}"
    fi
    [ -x /usr/bin/chromium ] || continue
    say "Chromium on $driver"
    if [ "$driver" = lavapipe ] && ! build_layer; then skip "Chromium on lavapipe: the Vulkan layer was not built"; continue; fi
    run node test/chromium.mjs "$driver" "$work/expected.json" "$work/toy.kiln" "$work/big.kiln" "$cases"
done

[ ${#skipped[@]} -eq 0 ] || say "Skipped: ${skipped[*]}"
[ ${#failed[@]} -eq 0 ] || fail "failed: ${failed[*]}"
say "The web package works"
