"""Dropout as flash-attn takes it: a seed from torch's generator (rng_state); the size that S_dmask may have.

The keep mask is regard's (docs/semantics.md, "Dropout").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn._dialect import round_multiple

# Entries of S_dmask. It exists to look at small cases: 2^26 entries are 128 MiB in bf16.
MAX_PROBABILITIES = 1 << 26

_U64 = 0xFFFFFFFFFFFFFFFF


def draw_rng_state() -> Tensor:
    """int64 (2): seed and offset from torch's default generator, which moves on; torch.manual_seed repeats them."""
    return torch.randint(-(1 << 63), (1 << 63) - 1, (2,), dtype=torch.int64, device="cpu")


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


def check_size(batch: int, heads: int, seqlen_q: int, seqlen_k: int) -> None:
    """Raises Error if S_dmask of these lengths would be larger than MAX_PROBABILITIES entries."""
    entries = batch * heads * round_multiple(seqlen_q, 128) * round_multiple(seqlen_k, 128)
    if entries > MAX_PROBABILITIES:
        raise Error(
            "return_attn_probs", f"True, with S_dmask of {entries} entries",
            f"at most {MAX_PROBABILITIES} entries (batch * heads * lengths rounded up to 128)",
        )
