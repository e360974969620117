"""What a call from Python costs, and whether torch and regard share their threads without waiting for each other.

    taskset -c 1 build/venv/bin/python bench/python_calls.py [--out FILE]

overhead     microseconds of a tiny decode (1 query, 16 keys, heads 8/2, d 64, f32) by each way into the library: the
             median over rounds of the mean over calls, against its goal; torch's own attention beside it
interleaved  a loop of torch and regard turn about, over the sum of the same two loops alone; 1.00 is ideal
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import python_report as report
import regard

Call = Callable[[], Any]


def seconds(run: Call, calls: int) -> float:
    """The mean time of a call."""
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def tiny_decodes() -> dict[str, tuple[float | None, Call]]:
    """By name: the goal in microseconds, and the call."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, n, h, 64), np.float32) for n, h in ((1, 8), (16, 2), (16, 2)))
    cases: dict[str, tuple[float | None, Call]] = {"regard.attention, NumPy": (12, lambda: regard.attention(q, k, v))}
    try:
        import torch
    except ImportError:
        return cases
    import regard.torch
    from regard import flash_attn

    tq, tk, tv = (torch.from_numpy(x) for x in (q, k, v))
    hq, hk, hv = (x.transpose(1, 2).contiguous() for x in (tq, tk, tv))
    new = torch.randn(1, 1, 2, 64)
    held = torch.tensor([15], dtype=torch.int32)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    cases |= {
        "regard.attention, torch": (12, lambda: regard.attention(tq, tk, tv)),
        "regard.attention, torch, options and lse": (12, lambda: regard.attention(
            tq, tk, tv, causal=True, window=(7, 0), softcap=30.0, return_lse=True)),
        "regard.with_kvcache, torch, append": (12, lambda: regard.with_kvcache(tq, tk, tv, new, new,
                                                                               cache_seqlens=held, causal=True)),
        "flash_attn.flash_attn_func": (25, lambda: flash_attn.flash_attn_func(tq, tk, tv, causal=True)),
        "flash_attn.flash_attn_with_kvcache": (25, lambda: flash_attn.flash_attn_with_kvcache(
            tq, tk, tv, cache_seqlens=held, causal=True)),
        "flash_attn.flash_attn_with_kvcache, append": (25, lambda: flash_attn.flash_attn_with_kvcache(
            tq, tk, tv, new, new, cache_seqlens=held, causal=True)),
        "regard.torch.attention": (25, lambda: regard.torch.attention(tq, tk, tv, causal=True)),
        "regard.torch.with_kvcache": (25, lambda: regard.torch.with_kvcache(tq, tk, tv, cache_seqlens=held)),
        "regard.torch.scaled_dot_product_attention": (25, lambda: regard.torch.scaled_dot_product_attention(
            hq, hk, hv, enable_gqa=True)),
        "torch's own scaled_dot_product_attention": (None, lambda: sdpa(hq, hk, hv, enable_gqa=True)),
    }
    return cases


def overhead(rounds: int, calls: int) -> list[report.Row]:
    cases = tiny_decodes()
    for _, run in cases.values():
        seconds(run, 200)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (_, run) in cases.items():
            times[name].append(seconds(run, calls) * 1e6)
    return [report.Row(name, statistics.median(times[name]), goal, less_is_better=True,
                       figures={"min_us": min(times[name])}) for name, (goal, _) in cases.items()]


def interleaved(rounds: int, calls: int) -> dict[str, float]:
    """Milliseconds of each loop, and the ratio."""
    import torch

    q = torch.randn(1, 512, 8, 64)
    a = torch.randn(768, 768)

    def attend() -> None:
        regard.attention(q, q, q, causal=True)

    def multiply() -> None:
        torch.nn.functional.gelu(a @ a)

    def both() -> None:
        attend()
        multiply()

    for run in (attend, multiply, both):
        seconds(run, calls)
    times: dict[str, list[float]] = {"regard": [], "torch": [], "both": []}
    for _ in range(rounds):
        for name, run in (("regard", attend), ("torch", multiply), ("both", both)):
            times[name].append(seconds(run, calls) * 1e3)
    ms = {name: statistics.median(values) for name, values in times.items()}
    ms["ratio"] = statistics.median(b / (r + t) for r, t, b in zip(times["regard"], times["torch"], times["both"]))
    return ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="write the figures to this file as JSON")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=1000, help="calls in a round")
    options = parser.parse_args()
    rows = overhead(options.rounds, options.calls)
    report.show(rows, "us")
    more: dict[str, Any] = {}
    try:
        ms = more["interleaved_ms"] = interleaved(options.rounds, min(20, options.calls))
    except ImportError:
        print("torch is not installed: no interleaved loop")
    else:
        print(f"regard {ms['regard']:.2f} ms, torch {ms['torch']:.2f} ms, turn about {ms['both']:.2f} ms: "
              f"{ms['ratio']:.2f} of the sum, {regard.num_threads()} threads")
    if options.out:
        report.write(options.out, " ".join(sys.argv), regard.num_threads(), rows, unit="us", **more)


if __name__ == "__main__":
    main()
