"""Dropout as flash-attn shows it: a seed from torch's generator (rng_state), and the probabilities with their signs.

The keep mask is regard's (docs/semantics.md, "Dropout"): Philox4x32-10, one 32-bit word for each (query, key, head).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn._dialect import round_multiple

# Entries of S_dmask. It exists to look at small cases: 2^26 entries are 128 MiB in bf16.
MAX_PROBABILITIES = 1 << 26

_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF


def draw_rng_state() -> Tensor:
    """int64 (2): seed and offset from torch's default generator, which moves on; torch.manual_seed repeats them."""
    return torch.randint(-(1 << 63), (1 << 63) - 1, (2,), dtype=torch.int64)


def dropout_options(dropout_p: float, rng_state: Tensor | None) -> dict[str, Any]:
    """Options of a regard call that drops with the bits of rng_state."""
    if not dropout_p:
        return {}
    if not 0 <= dropout_p <= 1:
        raise Error("dropout_p", str(dropout_p), "a probability in [0, 1]")
    if rng_state is None:
        raise Error("rng_state", "None", "the rng_state that the forward pass returned, since dropout_p > 0")
    seed, offset = rng_state.tolist()
    return {"dropout": float(dropout_p), "seed": seed & _U64, "offset": offset & _U64}


def keep_mask(seqlen_q: int, seqlen_k: int, b: int, heads: int, p: float, seed: int, offset: int, row0: int) -> Tensor:
    """bool (heads, seqlen_q, seqlen_k) of sequence b, True where kept; row0 is the position p' of its first query."""
    quads = -(-seqlen_k // 4)
    # 2^32 (not representable in 32 bits) drops everything.
    threshold = int(p * 4294967296.0)
    shape = (heads, seqlen_q, quads)
    c0 = torch.arange(quads).expand(shape)
    c1 = ((torch.arange(seqlen_q) + row0) & _U32)[:, None].expand(shape)
    c2 = ((torch.arange(heads) + b * heads) & _U32)[:, None, None].expand(shape)
    c3 = torch.full(shape, offset & _U32)
    k0, k1 = seed & _U32, (seed >> 32) ^ (offset >> 32)
    for _ in range(10):
        # Products wrap modulo 2^64 in int64; their low and high halves are still the right bits.
        x, y = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = ((y >> 32) & _U32) ^ c1 ^ k0, y & _U32, ((x >> 32) & _U32) ^ c3 ^ k1, x & _U32
        k0, k1 = (k0 + 0x9E3779B9) & _U32, (k1 + 0xBB67AE85) & _U32
    words = torch.stack((c0, c1, c2, c3), dim=-1).flatten(2)[:, :, :seqlen_k]
    return words >= threshold


def check_size(batch: int, heads: int, seqlen_q: int, seqlen_k: int) -> None:
    """Raises Error if S_dmask of these lengths would be larger than MAX_PROBABILITIES entries."""
    entries = batch * heads * round_multiple(seqlen_q, 128) * round_multiple(seqlen_k, 128)
    if entries > MAX_PROBABILITIES:
        raise Error(
            "return_attn_probs", f"True, with S_dmask of {entries} entries",
            f"at most {MAX_PROBABILITIES} entries (batch * heads * lengths rounded up to 128)",
        )


def signed_probabilities(q: Tensor, k: Tensor, lse: Tensor, b: int, options: dict[str, Any]) -> Tensor:
    """(Hq, Sq, Skv) f64 of one sequence: softmax before dropout, negative (-0.0 included) where it is dropped.

    q (Sq, Hq, D), k (Skv, Hkv, D), lse (Hq, Sq) as regard gives it; b its place in the batch; options as of the call.
    """
    (rows, heads, dim), keys = q.shape, k.shape[0]
    group = heads // k.shape[1]
    scores = torch.einsum("ihd,jhd->hij", q.double(), k.double().repeat_interleave(group, 1))
    scores *= options.get("scale", dim**-0.5)
    if cap := options.get("softcap"):
        scores = cap * torch.tanh(scores / cap)
    p, j = torch.arange(rows)[:, None] + keys - rows, torch.arange(keys)
    if (slopes := options.get("alibi_slopes")) is not None:
        slopes = slopes[b] if slopes.ndim == 2 else slopes
        scores -= slopes.double()[:, None, None] * (p - j).abs()
    left, right = options.get("window", (None, None))
    visible = torch.ones((rows, keys), dtype=torch.bool)
    if options.get("causal"):
        visible &= j <= p
    if left is not None:
        visible &= j >= p - left
    if right is not None:
        visible &= j <= p + right
    probs = torch.where(visible, torch.exp(scores - lse.double()[:, :, None]), 0.0)
    kept = keep_mask(rows, keys, b, heads, options["dropout"], options["seed"], options["offset"], keys - rows)
    return torch.where(kept, probs, -probs)
