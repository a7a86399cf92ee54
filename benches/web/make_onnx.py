#!/usr/bin/env python3
"""Makes an ONNX model as Transformers.js takes it, from what can be had without the hub.

    make_onnx.py model.gguf -o OUT --tokenizer BUNDLE     # SmolLM2's weights, dequantized and quantized again
    make_onnx.py config.json -o OUT --tokenizer BUNDLE    # random weights of these shapes; they compress well
    ... --dtype q4f16 q4                                  # float16 and float32 beside the 4-bit weights; absent: both

Needs: pip install torch transformers gguf onnxruntime-genai==0.18.0 onnxruntime onnx onnx_ir
The graph is made by onnxruntime-genai's own builder, for WebGPU: blocks of 32 weights, activations in 8 bits where it multiplies
(accuracy level 4), heads in 8 bits as in the GGUF file, only the last token's logits. BUNDLE is a folder with tokenizer.json, which the builder insists on; for random weights any will do."""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
import torch
from transformers import AutoConfig, AutoModelForCausalLM

# Weights repeat after this many, so that random models travel in few bytes; whole blocks of 32, and no divisor of a row.
PERIOD = 32 * 8191


def checkpoint(source: Path, folder: Path) -> None:
    """A Hugging Face checkpoint of a GGUF file, or of random weights for a config.json."""
    if source.suffix == ".gguf":
        model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
    else:
        shutil.copy(source, folder / "config.json")
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder)), dtype=torch.float32)
        base = torch.randn(PERIOD, generator=torch.Generator().manual_seed(7)) * 0.02
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.data = base.repeat(-(-parameter.numel() // PERIOD))[: parameter.numel()].reshape(parameter.shape)
    model.save_pretrained(str(folder))


def copy_tokenizer(source: Path, target: Path) -> None:
    """With the chat template inside, the only place where Transformers.js looks for one."""
    shutil.copy(source / "tokenizer.json", target)
    config = json.loads((source / "tokenizer_config.json").read_text())
    if (source / "chat_template.jinja").exists():
        config["chat_template"] = (source / "chat_template.jinja").read_text()
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def build(folder: Path, out: Path, dtype: str, symmetric: bool) -> None:
    """The graph and its weights, as out/onnx/model_DTYPE.onnx and model_DTYPE.onnx_data."""
    config = AutoConfig.from_pretrained(str(folder))
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    name = f"model_{dtype}.onnx"
    with tempfile.TemporaryDirectory(dir=out) as made:
        options = [
            "block_size=32",
            "accuracy_level=4",
            f"is_symmetric={str(symmetric).lower()}",
            "algo_config=rtn",
            "matmul_mixed_precision=last_matmul:int8",
            "prune_lm_head=true",
            f"use_webgpu_fp32={str(dtype == 'q4').lower()}",
        ]
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(folder), "-o", made, "-p", "int4", "-e", "webgpu"]
        subprocess.run([*builder, "-c", made, "--extra_options", *options], check=True)
        model = onnx.load(f"{made}/model.onnx", load_external_data=False)
        # Transformers.js reads the caches' width here, where the builder leaves it open.
        for value in [*model.graph.input, *model.graph.output]:
            for dimension in value.type.tensor_type.shape.dim:
                if dimension.dim_param == "kv_cache_dim":
                    dimension.dim_value = head_width
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = f"{name}_data"
        onnx.save(model, str(out / "onnx" / name))
        shutil.move(f"{made}/model.onnx.data", out / "onnx" / f"{name}_data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a GGUF file or a config.json")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json and tokenizer_config.json")
    parser.add_argument("--dtype", nargs="+", default=["q4f16", "q4"], choices=["q4f16", "q4"])
    parser.add_argument("--asymmetric", action="store_true", help="zero points beside the scales, as Q4_1 has them")
    arguments = parser.parse_args()
    out = arguments.out
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        checkpoint(arguments.source, Path(folder))
        for place in (Path(folder), out):
            copy_tokenizer(arguments.tokenizer, place)
        for dtype in arguments.dtype:
            build(Path(folder), out, dtype, not arguments.asymmetric)
        config = json.loads((Path(folder) / "config.json").read_text())
    # Each graph's weights lie beside it.
    config["transformers.js_config"] = {"use_external_data_format": {f"model_{dtype}.onnx": 1 for dtype in arguments.dtype}}
    (out / "config.json").write_text(json.dumps(config, indent=1))
    ends = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
    (out / "generation_config.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main()
