#!/usr/bin/env bash
# Measures model shapes with random weights on this machine's GPU, level 0 beside full, expert plans beside each other.
# Usage: benches/run.sh BIN OUT [SHAPE...]
#   BIN    folder with compile-model and run-model (target/release)
#   OUT    folder for one JSON file a measurement, and the logs
#   SHAPE  names in benches/configs; default: smollm2-135m llama-3.2-1b
# QUANT, PROFILE, PREFILL, DECODE, CONTEXTS, LEVELS and PLANS (how mixtures of experts run: chosen, gather, grouped, dense)
# may be set in the environment; PREFILL, CONTEXTS, LEVELS and PLANS may be several, with spaces between.
set -euo pipefail
bin=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- smollm2-135m llama-3.2-1b
configs=$(dirname "$0")/configs
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
for shape in "$@"; do
    for level in ${LEVELS:-0 1}; do
        for plan in ${PLANS:-chosen}; do
            name=$shape.level$level forced=()
            if [ "$plan" != chosen ]; then
                name=$name.$plan forced=(--moe-plan "$plan")
            fi
            bundle=$work/$name
            "$bin/compile-model" "$configs/$shape.json" -o "$bundle" --random-weights 1 --quant "${QUANT:-q4}" \
                --profile "${PROFILE:-h100}" --opt-level "$level" --no-self-test "${forced[@]}" 2>>"$out/log" | tee -a "$out/log"
            contexts=${CONTEXTS:-512} prefill=${PREFILL:-512}
            "$bin/run-model" bench "$bundle" --prefill "${prefill// /,}" --decode "${DECODE:-128}" \
                --context "${contexts// /,}" --json >"$out/$name.json" 2>>"$out/log"
            rm -rf "$bundle"
        done
    done
done
python3 "$(dirname "$0")/table.py" "$out"/*.json
