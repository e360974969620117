"""A Llama in transformers, attn_implementation="regard" against "sdpa": prefill and whole decode steps, bf16.

    build/venv/bin/python bench/transformers_llama.py --out FILE [--layers 16] [--vocab 128256] [--threads N]

The model has the shape of Llama-3.2-1B (hidden 2048, 32 heads, 8 kv heads, head_dim 64, intermediate 8192) and random
weights. Both implementations run in one process on the same weights, turn about, in an order that alternates from
round to round; figures are medians over rounds, ratios medians of the ratio within a round.

prefill         2048 tokens into an empty cache, logits of the last one
decode dynamic  one token after 16384, DynamicCache: transformers itself copies K and V once a step to append to them
decode static   the same with StaticCache, which appends in place

`attention` is the part of the time inside the attention function. The cache is filled with random keys and values.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AttentionInterface, DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

import regard
import regard.transformers

NAMES = ("regard", "sdpa")


class Clock:
    """Seconds spent inside the attention functions, which it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in NAMES:
            AttentionInterface.register(name, self._timed(AttentionInterface()[name]))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds += time.perf_counter() - begin
            return result

        return timed


def make_model(layers: int, vocab: int, max_tokens: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=2048, intermediate_size=8192, num_hidden_layers=layers, num_attention_heads=32,
                         num_key_value_heads=8, head_dim=64, vocab_size=vocab, max_position_embeddings=max_tokens,
                         tie_word_embeddings=True, eos_token_id=None)
    config._attn_implementation = "regard"
    return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def fill(cache: Any, config: Any, tokens: int) -> Any:
    """`tokens` random keys and values in every layer of an empty cache."""
    for layer in range(config.num_hidden_layers):
        k, v = (torch.randn(1, config.num_key_value_heads, tokens, config.head_dim, dtype=torch.bfloat16)
                for _ in range(2))
        cache.update(k, v, layer)
    return cache


def take_back(cache: Any) -> None:
    """Removes the last token from a cache."""
    if isinstance(cache, StaticCache):
        for layer in cache.layers:
            layer.cumulative_length.sub_(1)
    else:
        cache.crop(-1)


def compare(model: Any, clock: Clock, step: Callable[[], torch.Tensor], rounds: int) -> dict[str, Any]:
    """Times of `step` with either implementation, turn about, and how far their logits are apart."""
    total: dict[str, list[float]] = {name: [] for name in NAMES}
    inside: dict[str, list[float]] = {name: [] for name in NAMES}
    logits: dict[str, torch.Tensor] = {}
    for turn in range(rounds + 1):
        for name in NAMES if turn % 2 else NAMES[::-1]:
            model.set_attn_implementation(name)
            clock.seconds = 0.0
            begin = time.perf_counter()
            logits[name] = step()
            seconds = time.perf_counter() - begin
            if turn:  # the first turn warms up
                total[name].append(seconds * 1e3)
                inside[name].append(clock.seconds * 1e3)
    ours, theirs = (logits[name].float() for name in NAMES)
    gap = float((ours - theirs).abs().max() / theirs.abs().max())
    result: dict[str, Any] = {name: {"ms": statistics.median(total[name]), "all_ms": total[name],
                                     "attention_ms": statistics.median(inside[name])} for name in NAMES}
    result["ratio"] = statistics.median(s / r for r, s in zip(total["regard"], total["sdpa"]))
    result["attention_ratio"] = statistics.median(s / r for r, s in zip(inside["regard"], inside["sdpa"]))
    result["logits_gap"] = gap
    result["agree"] = gap < 0.05
    return result


@torch.no_grad()
def run(options: argparse.Namespace) -> dict[str, Any]:
    model = make_model(options.layers, options.vocab, options.context + 64)
    clock = Clock()
    prompt = torch.randint(0, options.vocab, (1, options.prefill))
    token = torch.randint(0, options.vocab, (1, 1))
    results: dict[str, Any] = {}

    def prefill() -> torch.Tensor:
        cache = DynamicCache(config=model.config)
        return model(prompt, past_key_values=cache, logits_to_keep=1).logits

    results["prefill"] = compare(model, clock, prefill, options.rounds)
    show("prefill", results["prefill"])
    for name in ("dynamic", "static"):
        cache = DynamicCache(config=model.config) if name == "dynamic" else \
            StaticCache(config=model.config, max_cache_len=options.context + 16)
        fill(cache, model.config, options.context)

        def decode() -> torch.Tensor:
            logits = model(token, past_key_values=cache).logits
            take_back(cache)
            return logits

        results[f"decode {name}"] = compare(model, clock, decode, 3 * options.rounds)
        show(f"decode {name}", results[f"decode {name}"])
        del cache
    return results


def show(case: str, result: dict[str, Any]) -> None:
    each = ", ".join(f"{name} {result[name]['ms']:.1f} ms (attention {result[name]['attention_ms']:.1f})"
                     for name in NAMES)
    print(f"{case:14}  {each}: {result['ratio']:.2f} times as fast, attention {result['attention_ratio']:.1f} times; "
          f"logits {'agree' if result['agree'] else 'DIFFER'} ({result['logits_gap']:.1e} of the largest)", flush=True)


def machine() -> dict[str, Any]:
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cores": os.cpu_count(), "load_average_before": os.getloadavg()[0]}


def commit() -> str:
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True,
                          check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="write the figures to this JSON file")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--prefill", type=int, default=2048, help="tokens of the prompt")
    parser.add_argument("--context", type=int, default=16384, help="tokens in the cache when decoding")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the prefill; decode takes three times as many")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    regard.transformers.register()
    about = {"machine": machine(), "commit": commit(), "threads": options.threads,
             "versions": {"regard": regard.__version__, "torch": torch.__version__,
                          "transformers": transformers.__version__, "python": platform.python_version()},
             "model": {"like": "Llama-3.2-1B", "layers": options.layers, "vocab": options.vocab, "dtype": "bf16",
                       "prefill": options.prefill, "context": options.context}}
    results = run(options)
    if options.out:
        Path(options.out).write_text(json.dumps({**about, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
