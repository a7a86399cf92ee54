"""Prints the JSON files that `run-model bench --json` wrote as one Markdown table."""

import json
import os
import sys

COLUMNS = "| run | variant | decode tokens/s (after) | prefill tokens/s (of) | first token ms (of) | dispatches | kernels | load s | pipelines s | CPU µs a token | host MB | device MB: planned | allocated | reserved |"


def each(entries, key, of, digits=0, scale=1):
    """`value (of), value (of)` of a list of measurements."""
    return ", ".join(f"{entry[key]['median'] * scale:.{digits}f} ({entry[of]})" for entry in entries)


print(COLUMNS)
print("|" + "---|" * (COLUMNS.count("|") - 1))
for path in sys.argv[1:]:
    with open(path) as file:
        run = json.load(file)
    name = os.path.basename(path).removesuffix(".json")
    memory = run["memory"]
    cells = [
        name,
        run["variant"],
        each(run["decode"], "tokens_per_s", "context"),
        each(run["prefill"], "tokens_per_s", "tokens"),
        each(run["prefill"], "time_to_first_token_s", "tokens", digits=1, scale=1e3),
        f"{run['decode_dispatches']}",
        f"{run['kernels']}",
        f"{run['load_s']:.2f}",
        f"{run['pipelines_s']:.2f}",
        f"{run['decode'][0]['cpu_encode_us_per_token']['median']:.0f}",
        f"{(run['peak_host_bytes'] or 0) / 1e6:.0f}",
        f"{memory['planned_total'] / 1e6:.0f}",
        f"{memory['allocated'] / 1e6:.0f}",
        f"{(memory['reserved'] or 0) / 1e6:.0f}",
    ]
    print("| " + " | ".join(cells) + " |")
    phases = [(f"decode {entry['context']}", entry["kernel_times"]) for entry in run["decode"]]
    for phase, rows in phases + [("prefill", run["prefill_kernel_times"])]:
        for row in (rows or [])[:12]:
            print(
                f"    {phase:12} {row['total_us']:9.1f} us {row['share']:6.1%} {row['dispatches']:4} x {row['kernel']}",
                file=sys.stderr,
            )
