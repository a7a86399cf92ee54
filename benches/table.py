"""Prints the JSON files that `run-model bench --json` wrote as one Markdown table."""

import json
import os
import sys

COLUMNS = "| run | variant | decode tokens/s | prefill tokens/s | first token ms | dispatches | kernels | load s | pipelines s | CPU µs a token | host MB | device MB |"
print(COLUMNS)
print("|" + "---|" * (COLUMNS.count("|") - 1))
for path in sys.argv[1:]:
    with open(path) as file:
        run = json.load(file)
    name = os.path.basename(path).removesuffix(".json")
    cells = [
        name,
        run["variant"],
        f"{run['decode_tokens_per_s']['median']:.0f}",
        f"{run['prefill_tokens_per_s']['median']:.0f}",
        f"{run['time_to_first_token_s']['median'] * 1e3:.1f}",
        f"{run['decode_dispatches']}",
        f"{run['kernels']}",
        f"{run['load_s']:.2f}",
        f"{run['pipelines_s']:.2f}",
        f"{run['cpu_encode_us_per_token']['median']:.0f}",
        f"{(run['peak_host_bytes'] or 0) / 1e6:.0f}",
        f"{run['device_bytes'] / 1e6:.0f}",
    ]
    print("| " + " | ".join(cells) + " |")
    for phase in ("decode", "prefill"):
        for row in (run[f"{phase}_kernel_times"] or [])[:12]:
            print(
                f"    {phase:8} {row['total_us']:9.1f} us {row['share']:6.1%} {row['dispatches']:4} x {row['kernel']}",
                file=sys.stderr,
            )
