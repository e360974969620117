"""What a call from Python costs, and whether torch and regard share their threads without waiting for each other.

    build/venv/bin/python bench/python_calls.py [--json FILE]

overhead    microseconds of a tiny decode (1 query, 16 keys, 8 heads, d 64) with NumPy arrays and with torch tensors: the
            median over rounds of the mean over calls
interleaved a loop of torch and regard turn about, over the sum of the same two loops alone; 1.00 is ideal
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import regard

ROUNDS = 15


def seconds(run: Callable[[], Any], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def overhead() -> dict[str, float]:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, n, h, 64), np.float32) for n, h in ((1, 8), (16, 2), (16, 2)))
    cases: dict[str, Callable[[], Any]] = {"numpy": lambda: regard.attention(q, k, v)}
    try:
        import torch
    except ImportError:
        pass
    else:
        tq, tk, tv = (torch.from_numpy(x) for x in (q, k, v))
        cases["torch"] = lambda: regard.attention(tq, tk, tv)
        cases["torch, options and lse"] = lambda: regard.attention(
            tq, tk, tv, causal=True, window=(7, 0), softcap=30.0, return_lse=True)
    for run in cases.values():
        seconds(run, 200)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, run in cases.items():
            times[name].append(seconds(run, 1000) * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def interleaved() -> dict[str, float]:
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
        seconds(run, 10)
    times: dict[str, list[float]] = {"regard": [], "torch": [], "both": []}
    for _ in range(ROUNDS):
        for name, run in (("regard", attend), ("torch", multiply), ("both", both)):
            times[name].append(seconds(run, 20) * 1e3)
    ms = {name: statistics.median(values) for name, values in times.items()}
    ms["ratio"] = statistics.median(b / (r + t) for r, t, b in zip(times["regard"], times["torch"], times["both"]))
    return ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    result: dict[str, Any] = {"version": regard.__version__, "threads": regard.num_threads(), "overhead_us": overhead()}
    for name, us in result["overhead_us"].items():
        print(f"call, {name}: {us:.1f} us")
    try:
        result["interleaved_ms"] = interleaved()
    except ImportError:
        print("torch is not installed: no interleaved loop")
    else:
        ms = result["interleaved_ms"]
        print(f"regard {ms['regard']:.2f} ms, torch {ms['torch']:.2f} ms, turn about {ms['both']:.2f} ms: "
              f"{ms['ratio']:.2f} of the sum, {regard.num_threads()} threads")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
