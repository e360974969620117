"""Sliding-window attention: each token sees the last W, itself included. Three ways that give the same numbers.

    python examples/python/sliding_window.py
    python examples/python/sliding_window.py --seq 4096 --window 512

1. torch's scaled_dot_product_attention with a band mask written out: every score is computed, most are thrown away.
2. regard with `window=(W - 1, 0)`: the scores outside the band are never computed.
3. regard one token at a time over a ring of W slots: the cache never grows. The keys need no order, because what a
   softmax sums over has none; positions live in the keys (by rotary embedding, say), not in the slots.
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import regard.torch


def timed(call: Callable[[], Tensor], rounds: int) -> tuple[Tensor, float]:
    """The result of a call and its median time in ms."""
    result, times = call(), []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    return result, statistics.median(times)


def banded(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """torch with the mask written out; (batch, seq, heads, head_dim) in and out."""
    p = torch.arange(q.shape[1])
    gap = p[:, None] - p[None, :]
    heads_first = [t.transpose(1, 2) for t in (q, k, v)]
    out = F.scaled_dot_product_attention(*heads_first, attn_mask=(gap >= 0) & (gap < window), enable_gqa=True)
    return out.transpose(1, 2)


def windowed(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """regard over the whole prompt."""
    return regard.torch.attention(q, k, v, causal=True, window=(window - 1, None))


def streamed(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """regard token by token, keeping only the last `window` keys."""
    batch, seq, heads_kv, head_dim = k.shape
    ring_k, ring_v = (torch.zeros(batch, window, heads_kv, head_dim, dtype=k.dtype) for _ in range(2))
    rows = []
    for t in range(seq):
        ring_k[:, t % window], ring_v[:, t % window] = k[:, t], v[:, t]
        used = torch.full((batch,), min(t + 1, window), dtype=torch.int32)
        rows.append(regard.torch.attention(q[:, t:t + 1], ring_k, ring_v, seqused_kv=used))
    return torch.cat(rows, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--heads-kv", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(1)
    q = torch.randn(1, options.seq, options.heads, options.head_dim)
    k, v = (torch.randn(1, options.seq, options.heads_kv, options.head_dim) for _ in range(2))
    want, torch_ms = timed(lambda: banded(q, k, v, options.window), options.rounds)
    got, regard_ms = timed(lambda: windowed(q, k, v, options.window), options.rounds)
    stream, stream_ms = timed(lambda: streamed(q, k, v, options.window), 1)
    print(f"{options.seq} tokens, window {options.window}, heads {options.heads}/{options.heads_kv}, "
          f"head_dim {options.head_dim}, {torch.get_num_threads()} threads")
    print(f"torch, mask written out   {torch_ms:9.2f} ms")
    print(f"regard, window            {regard_ms:9.2f} ms   largest difference {(got - want).abs().max():.1e}")
    print(f"regard, ring of {options.window:5d} keys {stream_ms / options.seq:8.3f} ms a token   "
          f"largest difference {(stream - want).abs().max():.1e}")


if __name__ == "__main__":
    main()
