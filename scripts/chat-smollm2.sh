#!/usr/bin/env bash
# Compiles SmolLM2-135M-Instruct to WGSL kernels and chats with it.
# Usage: scripts/chat-smollm2.sh               a conversation
#        scripts/chat-smollm2.sh QUESTION...   one answer
. "$(dirname "$0")/common.sh"
models=${KILN_MODELS:-models}
gguf=$models/SmolLM2-135M-Instruct.Q4_1.gguf
bundle=$models/smollm2.kiln

need_tools
need_vulkan
scripts/fetch-models.sh smollm2

say "Building the compiler and the runtime (minutes the first time)"
cargo build --release -p kiln-compiler -p kiln-runtime --bins
bin=$(target_folder)/release

# A bundle of an older compiler is compiled again.
if [ ! -e "$bundle/manifest.json" ] || [ "$bin/compile-model" -nt "$bundle/manifest.json" ]; then
    say "Compiling $gguf to $bundle"
    "$bin/compile-model" "$gguf" -o "$bundle"
fi

if [ $# -eq 0 ] && [ -t 0 ]; then
    say "Chat (Ctrl-D ends it)"
    exec "$bin/run-model" chat "$bundle"
fi
# Without a terminal nobody asks: then this is the question.
question=${*:-What is the capital of France?}
say "$question"
exec "$bin/run-model" generate "$bundle" --prompt "$question" --max-tokens 256
