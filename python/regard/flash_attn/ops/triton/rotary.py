"""flash_attn.ops.triton.rotary: the rotation itself. Computed in f32, rounded once."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import Error

__all__ = ["apply_rotary"]


def apply_rotary(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    seqlen_offsets: int | Tensor = 0,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    interleaved: bool = False,
    inplace: bool = False,
    conjugate: bool = False,
) -> Tensor:
    """Turns the first rotary_dim channels of x by the angle of each token's position.

    x: (B, S, H, D), or packed (T, H, D) with cu_seqlens (B + 1). cos, sin: (positions, rotary_dim / 2), any float type.
    seqlen_offsets: an int, or (B): token t of sequence b stands at offset + t. interleaved: pairs (0, 1), (2, 3), ...;
    else channel c and c + rotary_dim / 2. inplace: writes x. conjugate: turns back.
    Returns x's shape and type. Raises Error for a position that cos has no row for.
    """
    half = cos.shape[-1]
    if cos.ndim != 2 or cos.shape != sin.shape:
        raise Error("sin", str(tuple(sin.shape)), f"the shape of cos, {tuple(cos.shape)}, (positions, rotary_dim / 2)")
    if 2 * half > x.shape[-1]:
        raise Error("cos", str(tuple(cos.shape)), f"rotary_dim / 2 of at most half the head dim {x.shape[-1]}")
    positions = _positions(x, seqlen_offsets, cu_seqlens)
    if positions.numel() and (int(positions.min()) < 0 or int(positions.max()) >= cos.shape[0]):
        worst = int(positions.min()) if int(positions.min()) < 0 else int(positions.max())
        raise Error("seqlen_offsets", f"position {worst}", f"positions in [0, {cos.shape[0]}), the rows of cos")
    c, s = cos.float()[positions].unsqueeze(-2), sin.float()[positions].unsqueeze(-2)
    if conjugate:
        s = -s
    out = x if inplace else x.clone()
    tokens = positions.shape[-1] if cu_seqlens is not None else x.shape[1]
    source, target = (t[:tokens] if cu_seqlens is not None else t for t in (x, out))
    first, second = _halves(half, interleaved)
    a, b = source[..., first].float(), source[..., second].float()
    # In f32 and in place a and b are views of the target: both results come before the first write.
    turned = a * c - b * s, a * s + b * c
    target[..., first], target[..., second] = (t.to(x.dtype) for t in turned)
    return out


def _halves(half: int, interleaved: bool) -> tuple[slice, slice]:
    """Channels of the two members of each pair."""
    if interleaved:
        return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    return slice(0, half), slice(half, 2 * half)


def _positions(x: Tensor, offsets: int | Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """(S,) or (B, S) for a batch, (tokens,) for packed x; tokens past the last sequence have none."""
    if cu_seqlens is None:
        t = torch.arange(x.shape[1], device=x.device)
        return t + (offsets.to(torch.int64)[:, None] if isinstance(offsets, Tensor) else offsets)
    cu = cu_seqlens.to(torch.int64)
    owner = torch.arange(cu.shape[0] - 1, device=x.device).repeat_interleave(cu.diff())
    t = torch.arange(owner.shape[0], device=x.device) - cu[:-1][owner]
    return t + (offsets.to(torch.int64)[owner] if isinstance(offsets, Tensor) else offsets)
