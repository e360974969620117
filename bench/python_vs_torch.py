"""regard against torch's own attention from Python, on the same cores, turn about, results compared in the same run.

    taskset -c 0 build/venv/bin/python bench/python_vs_torch.py --threads 1 --out FILE
    build/venv/bin/python bench/python_vs_torch.py --threads 2 --only decode

train   forward and backward through autograd by the same call, scaled_dot_product_attention(q, k, v, is_causal), on
        (B, H, S, D) tensors, d 128, 8 query and 8 key heads (torch's best case; grouped heads: --heads 32 --heads-kv 8)
decode  one query over 32768 keys, heads 32/8, d 128, torch's call with enable_gqa; regard through regard.torch and,
        with the cache as (B, S, H, D), through regard.attention
gpt     whole training steps of examples/python/tiny_gpt.py at 1024 tokens: forward, loss, backward, AdamW

A row's value is the median over rounds of torch's time over regard's. Beside a train row stands what the value would be
if regard ran at the machine's arithmetic roof, measured before and after: torch's best share of it bounds the ratio.
Every result is held against torch in f64 first: out, dq, dk, dv may be off by three times what torch is off (the
project's rule for gradients); of the GPT, the losses of the first steps must agree.
"""

from __future__ import annotations

import argparse
import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import python_report as report
import regard.torch

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
SDPA: dict[str, Callable[..., Tensor]] = {"regard": regard.torch.scaled_dot_product_attention,
                                          "torch": F.scaled_dot_product_attention}


def error(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return report.finite(float((got.double() - want).abs().max() / want.abs().max()))


def hold(name: str, ours: Tensor, theirs: Tensor, want: Tensor, dtype: torch.dtype) -> float:
    """The error of `ours`; ends the program where it is neither small nor torch's own."""
    mine, bound = error(ours, want), 3 * error(theirs, want) + (1e-5 if dtype == torch.float32 else 2e-4)
    if mine > bound:
        raise SystemExit(f"{name}: regard is off by {mine:.2e}, more than {bound:.2e}")
    return mine


def train(options: argparse.Namespace) -> list[report.Row]:
    rows = []
    for word in options.types:
        for seq in options.seq:
            for causal in (False, True):
                rows.append(train_row(options, word, seq, causal))
                report.show(rows[-1:], "x")
    return rows


def arithmetic_roof(word: str) -> float:
    """GFLOP/s of this machine's multiply-add loop for that type, on torch's number of threads, now."""
    case = f"prefill b=1 sq=128 skv=128 hq=8 hkv=8 d=128 dtype={word}"
    return regard.bench(case, min_seconds=0.1, threads=torch.get_num_threads()).roof_value


def train_row(options: argparse.Namespace, word: str, seq: int, causal: bool) -> report.Row:
    dtype = TYPES[word]
    torch.manual_seed(seq)
    heads = (options.heads, options.heads_kv, options.heads_kv)
    inputs = [torch.randn(1, h, seq, options.head_dim).to(dtype).requires_grad_() for h in heads]
    dout = torch.randn(1, options.heads, seq, options.head_dim).to(dtype)
    grouped = options.heads != options.heads_kv

    def step(function: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
        out = function(*tensors, is_causal=causal, enable_gqa=grouped)
        return (out.detach(), *torch.autograd.grad(out, tensors, grad))

    want = step(SDPA["torch"], [t.detach().double().requires_grad_() for t in inputs], dout.double())
    got = {name: step(function, inputs, dout) for name, function in SDPA.items()}
    case = f"train s={seq} {'causal' if causal else 'full'} heads {heads[0]}/{heads[1]} d={options.head_dim} {word}"
    errors = {f"error_{name}": hold(f"{case}, {name}", ours, theirs, exact, dtype)
              for name, ours, theirs, exact in zip(("out", "dq", "dk", "dv"), got["regard"], got["torch"], want)}
    del want, got
    calls: dict[str, Callable[[], Any]] = {
        name: functools.partial(step, function, inputs, dout) for name, function in SDPA.items()}
    roofs = [arithmetic_roof(word)]
    times = report.turn_about(calls, options.rounds, options.min_time)
    roofs.append(arithmetic_roof(word))
    goal = None
    if seq >= 1024:
        goal = {"f32": 2.2, "bf16": 2.5}[word]
    elif seq == 512 and causal:
        goal = 3.5
    row = report.ratio_row(case, times, "regard", "torch", goal, roof_gflops=max(roofs), **errors)
    pairs = seq * (seq + 1) / 2 if causal else seq * seq
    for name in SDPA:  # two products forward, five backward; the best round, since the roof is a best as well
        row.figures[f"{name}_best_gflops"] = 14e-9 * options.heads * pairs * options.head_dim / min(times[name])
    row.figures["ratio_at_roof"] = max(roofs) / row.figures["torch_best_gflops"]
    return row


def decode(options: argparse.Namespace) -> list[report.Row]:
    rows = []
    for word in options.types:
        dtype = TYPES[word]
        torch.manual_seed(1)
        q = torch.randn(1, 32, 1, 128).to(dtype)
        k, v = (torch.randn(1, 8, options.keys, 128).to(dtype) for _ in range(2))
        tokens_first = [t.transpose(1, 2).contiguous() for t in (q, k, v)]
        calls: dict[str, Callable[[], Any]] = {
            "regard.torch": lambda: SDPA["regard"](q, k, v, enable_gqa=True),
            "regard": lambda: regard.attention(*tokens_first),
            "torch": lambda: SDPA["torch"](q, k, v, enable_gqa=True),
        }
        want = SDPA["torch"](*(t.double() for t in (q, k, v)), enable_gqa=True)
        theirs = calls["torch"]()
        case = f"decode {options.keys} keys heads 32/8 d=128 {word}"
        errors = {"regard.torch": hold(case, calls["regard.torch"](), theirs, want, dtype),
                  "regard": hold(case, calls["regard"]().transpose(1, 2), theirs, want, dtype)}
        times = report.turn_about(calls, options.rounds, options.min_time)
        goal = {"f32": {1: 8, 2: 5}, "bf16": {1: 30, 2: 25}}[word].get(torch.get_num_threads())
        held_bytes = 2 * k.numel() * k.element_size()
        for name, way in (("regard.torch", "regard.torch's SDPA"), ("regard", "regard.attention")):
            row = report.ratio_row(f"{case}, {way}", {name: times[name], "torch": times["torch"]}, name, "torch", goal,
                                   error_out=errors[name])
            for who in (name, "torch"):
                row.figures[f"{who}_gb_per_s"] = held_bytes / (1e6 * row.figures[f"{who}_ms"])
            rows.append(row)
        report.show(rows[-2:], "x")
    return rows


def gpt(options: argparse.Namespace) -> list[report.Row]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "python"))
    from tiny_gpt import TinyGpt  # type: ignore[import-not-found]

    torch.manual_seed(1)
    seq, vocabulary = options.gpt_seq, 96
    first = TinyGpt(vocabulary, seq, options.width, options.gpt_heads, options.layers, SDPA["torch"])
    second = copy.deepcopy(first)
    for block in second.blocks:
        block.attention = SDPA["regard"]
    models = {"regard": second, "torch": first}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-3) for name, model in models.items()}
    ids = torch.randint(vocabulary, (options.batch, seq + 1))
    losses: dict[str, list[float]] = {name: [] for name in models}

    def step(name: str) -> None:
        loss = F.cross_entropy(models[name](ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizers[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers[name].step()
        losses[name].append(float(loss.detach()))

    calls: dict[str, Callable[[], Any]] = {name: functools.partial(step, name) for name in models}
    times = report.turn_about(calls, options.rounds, options.min_time)
    gap = max(abs(a - b) for a, b in zip(losses["regard"][:5], losses["torch"][:5]))
    if not gap < 1e-3 or not losses["regard"][-1] < losses["regard"][0]:
        raise SystemExit(f"gpt: losses of the first five steps differ by {gap}, or the loss does not fall")
    case = (f"tiny GPT step s={seq} batch {options.batch} width {options.width} heads {options.gpt_heads} "
            f"layers {options.layers} f32")
    row = report.ratio_row(case, times, "regard", "torch", 1.2 if seq == 1024 else None, largest_loss_gap=gap)
    report.show([row], "x")
    return [row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=["train", "decode", "gpt"], help="a part; may be repeated")
    parser.add_argument("--threads", type=int, help="torch.set_num_threads; default: what torch has")
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--seq", nargs="+", type=int, default=[512, 1024, 2048], help="lengths of train")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--heads-kv", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--keys", type=int, default=32768, help="length of decode's cache")
    parser.add_argument("--gpt-seq", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--gpt-heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11, help="at least so many")
    parser.add_argument("--min-time", type=float, default=2.0, help="seconds that the rounds of a row take at least")
    parser.add_argument("--out", help="write the rows to this file as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, regard {regard.__version__}, {threads} threads, {report.cpu_name()}; "
          "value: torch's time over regard's")
    rows = []
    for name, part in (("train", train), ("decode", decode), ("gpt", gpt)):
        if not options.only or name in options.only:
            rows += part(options)
    missed = sum(row.met is False for row in rows)
    print(f"{len(rows)} rows, {missed} behind their goal")
    if options.out:
        report.write(options.out, " ".join(sys.argv), threads, rows, unit="times faster than torch")


if __name__ == "__main__":
    main()
