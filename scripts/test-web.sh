#!/usr/bin/env bash
# Tests the JavaScript package in headless Chromium, Node, Deno and Bun on software devices: SwiftShader (no f16) and, where
# it can be had, Mesa's lavapipe (f16). Builds the package, makes bundles and asks the native runtime for their tokens.
# Usage: scripts/test-web.sh [--quick]     --quick: lavapipe only, in Node and Chromium, with a toy and SmolLM2
# What a machine lacks is skipped, loudly. scripts/test.sh runs the quick ones: all of them take half an hour on two cores, most of it
# software devices that compile kernels.
. "$(dirname "$0")/common.sh"
. scripts/web-common.sh
quick=${1:-}
# skip WHAT WHY: WHAT is a name of KILN_REQUIRE, which makes a failure of it.
skip() {
    ! required "$1" || fail "$2 (KILN_REQUIRE=$KILN_REQUIRE makes that a failure)"
    shift
    printf '%s\n' '************************************************************************' "SKIPPED: $*" \
        '************************************************************************' >&2
    skipped+=("$*")
}
skipped=()
failed=()

scripts/build-web.sh --install || { [ $? -eq 3 ] && skip browser "the web tests: the package was not built" && exit 3; }
use_node

work=$(target_folder)/web-test
mkdir -p "$work/kernels"

say "Making the toy bundles, and their tokens by the native runtime"
cargo build --quiet -p kiln-compiler -p kiln-runtime --bins
bin=$(target_folder)/debug
# compile BUNDLE ARGUMENTS...
compile() {
    local bundle=$1
    shift
    [ ! -d "$bundle" ] || rm -r "$bundle"
    "$bin/compile-model" "$@" -o "$bundle" >/dev/null
}
# ask_native BUNDLE ANSWER ARGUMENTS...: greedy tokens.
ask_native() {
    local bundle=$1 answer=$2
    shift 2
    "$bin/run-model" generate "$bundle" --temperature 0 --json "$@" 2>/dev/null |
        python3 -c 'import json, sys; d = json.load(sys.stdin); print(json.dumps(dict(d, prompt=d["prompt_ids"])))' >"$answer"
}
compile "$work/toy.kiln" codegen-tests/fixtures/llama-A-f32
compile "$work/big.kiln" runtime/js/test/big.config.json --random-weights 1
ask_native "$work/toy.kiln" "$work/expected.json" --ids 1,2,3,4,5,6,7 --max-tokens 24
rm -f "$work/session"
"$bin/run-model" generate "$work/toy.kiln" --ids 1,2,3,4,5,6,7 --max-tokens 8 --session "$work/session" >/dev/null 2>&1
export KILN_SESSION=$work/session KILN_RUN_MODEL=$bin/run-model KILN_TOY=$work/toy.kiln

# Mixtures of experts and hybrids; of every architecture the kernels, in all ways to compile it.
hybrids=(gpt_oss-A-mxfp4 lfm2_moe-A-bf16 qwen3_5-A-bf16 qwen3_next-A-bf16)
kernels=("$work/toy.kiln")
real=
if [ "$quick" != --quick ]; then
    for model in "${hybrids[@]}"; do
        compile "$work/$model.kiln" "codegen-tests/fixtures/$model"
        ask_native "$work/$model.kiln" "$work/$model.json" --ids 1,2,3,4,5,6,7 --max-tokens 12
    done
    kernels=()
    for folder in codegen-tests/fixtures/*/config.json; do
        folder=${folder%/config.json}
        ways=("" "--quant q4" "--quant q8" "--opt-level 0")
        ! grep -q experts "$folder/config.json" || ways+=("--moe-plan gather" "--moe-plan grouped" "--moe-plan dense")
        for way in "${ways[@]}"; do
            bundle="$work/kernels/${folder##*/}${way// /_}.kiln"
            # shellcheck disable=SC2086
            compile "$bundle" "$folder" --no-weights --no-self-test $way
            kernels+=("$bundle")
        done
    done
fi
# A real model.
if (scripts/fetch-models.sh smollm2); then
    real=$work/smollm2.kiln
    compile "$real" "${KILN_MODELS:-models}/SmolLM2-135M-Instruct.Q4_1.gguf" --no-self-test
    export KILN_SMOLLM2=$real
    ask_native "$real" "$work/smollm2.json" --prompt 'What is the capital of France?'
else
    skip models "SmolLM2 could not be fetched: no real tokenizer and no real model, and the chat page is not tested"
fi

# Chromium brings SwiftShader with it.
if ! [ -x /usr/bin/chromium ]; then
    (install_packages chromium libvulkan1) || skip browser "Chromium is not installed (apt install chromium)"
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
if fetch_lavapipe; then drivers+=(lavapipe); else skip gpu "lavapipe: no Mesa of version 24 or newer can be had, so nothing tests f16"; fi
if [ "$quick" != --quick ] && [ -e "$swiftshader" ]; then drivers+=(swiftshader); fi
export KILN_LAVAPIPE=$work/mesa/lavapipe.json KILN_VULKAN_LAYER=$work/layer XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}

cd runtime/js
run() { "$@" || failed+=("$*"); }

say "Tokenizer, templates and channels"
run env TZ=UTC node --test test/text.test.mjs test/channels.test.mjs test/fit.test.mjs test/saved.test.mjs test/session.test.mjs

rm -f "$work/url"
node test/serve.mjs "$work/toy.kiln" "$work/big.kiln" "$work/url" &
server=$!
trap 'kill $server' EXIT
until [ -s "$work/url" ]; do sleep 0.1; done

# on DRIVER COMMAND...: with that Vulkan driver.
on() {
    local icd=$swiftshader
    [ "$1" != lavapipe ] || icd=$KILN_LAVAPIPE
    shift
    run env VK_DRIVER_FILES="$icd" VK_ICD_FILENAMES="$icd" DENO_NO_UPDATE_CHECK=1 "$@"
}
# in_host DRIVER own|dawn CASES COMMAND...: the cases in a host (all, where CASES is empty).
in_host() {
    local driver=$1 webgpu=$2 cases=$3
    shift 3
    say "$* on $driver"
    on "$driver" "$@" test/host.mjs "$(cat "$work/url")" "$work/expected.json" "$webgpu" "$cases"
}
# Some containers let no browser start.
chromium_starts() {
    timeout 60 node --input-type=module -e "import { launch } from './test/browser.mjs'; const { context, close } = await launch('$1'); await context.newPage(); await close()"
}
bun=(node_modules/.bin/bun)
deno=(node_modules/.bin/deno run -A --node-modules-dir=manual)
for driver in "${drivers[@]}"; do
    # SwiftShader needs seconds for each load: there the generation is enough.
    cases=
    [ "$driver" = lavapipe ] || cases='every variant'
    in_host "$driver" own "$cases" node
    if [ "$quick" != --quick ]; then
        in_host "$driver" own "$cases" "${bun[@]}"
        in_host "$driver" own "$cases" "${deno[@]}"
        in_host "$driver" dawn 'every variant' "${deno[@]}"
        say "Mixtures, hybrids and a real model in Node on $driver"
        for model in "${hybrids[@]}"; do
            for variant in $([ "$driver" = lavapipe ] && echo f16 subgroups) base; do
                on "$driver" node test/real-host.mjs "$work/$model.kiln" "$work/$model.json" own "$variant"
            done
        done
        # SwiftShader takes two minutes for eight tokens.
        [ -z "$real" ] || on "$driver" node test/real-host.mjs "$real" "$work/smollm2.json" own
        if [ -n "$real" ] && [ "$driver" = lavapipe ]; then
            say "The real model in Bun and Deno"
            on "$driver" "${bun[@]}" test/real-host.mjs "$real" "$work/smollm2.json" own
            on "$driver" "${deno[@]}" test/real-host.mjs "$real" "$work/smollm2.json" own
            on "$driver" "${deno[@]}" test/real-host.mjs "$real" "$work/smollm2.json" dawn
        fi
    fi
    [ -x /usr/bin/chromium ] || continue
    say "Chromium on $driver"
    if [ "$driver" = lavapipe ] && ! build_layer; then skip browser "Chromium on lavapipe: the Vulkan layer was not built"; continue; fi
    if ! chromium_starts "$driver"; then skip browser "Chromium on $driver: it does not start here"; continue; fi
    run node test/chromium.mjs "$driver" "$work/expected.json" "$work/toy.kiln" "$work/big.kiln" "$cases"
    run node test/kernels.mjs "$driver" "${kernels[@]}"
    [ -z "$real" ] || [ "$driver" != lavapipe ] || run node test/real.mjs "$driver" "$real" "$work/smollm2.json"
    [ "$quick" != --quick ] || continue
    for model in "${hybrids[@]}"; do
        say "$model in Chromium on $driver"
        run node test/chromium.mjs "$driver" "$work/$model.json" "$work/$model.kiln" "$work/big.kiln" 'every variant'
    done
    [ "$driver" = lavapipe ] || continue
    say "An extension, and the package in a project elsewhere"
    run node test/extension.mjs "$driver" "$work/expected.json" "$work/toy.kiln"
    run node test/consumer.mjs "$driver" "$work/expected.json" "$work/toy.kiln"
    if [ -n "$real" ]; then
        say "The chat page"
        (cd ../../examples/web-chat && npm ci --no-audit --no-fund --silent && node_modules/.bin/vite build --logLevel warn)
        run node test/chat.mjs "$driver" "$real" "$work/chat"
        say "Pictures of the chat page are in $work/chat"
    fi
done

[ ${#skipped[@]} -eq 0 ] || say "Skipped: ${skipped[*]}"
[ ${#failed[@]} -eq 0 ] || fail "failed: ${failed[*]}"
say "The web package works"
