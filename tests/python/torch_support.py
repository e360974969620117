"""Helpers of the torch tests: the formula in f64 as torch operations, which torch itself differentiates."""
from __future__ import annotations

import math

import torch
from torch import Tensor

# Largest error of a result and of a gradient, for inputs of size about 1 and a few dozen keys.
OUT_BOUND = {torch.float32: 2e-5, torch.float16: 6e-3, torch.bfloat16: 4e-2}
GRAD_BOUND = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}


def plain_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, causal: bool = False,
                    window: tuple[int | None, int | None] = (None, None), softcap: float = 0.0,
                    bias: Tensor | None = None, mask: Tensor | None = None, sink: Tensor | None = None,
                    alibi_slopes: Tensor | None = None, q_offset: int | None = None) -> tuple[Tensor, Tensor]:
    """out (B, Sq, Hq, Dv) and lse (B, Hq, Sq) in f64 of q (B, Sq, Hq, D), k (B, Skv, Hkv, D), v (B, Skv, Hkv, Dv)."""
    group = q.shape[2] // k.shape[2]
    k, v = (t.double().repeat_interleave(group, 2) for t in (k, v))
    s = torch.einsum("bihd,bjhd->bhij", q.double(), k) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    p = (torch.arange(q.shape[1]) + (k.shape[1] - q.shape[1] if q_offset is None else q_offset))[:, None]
    j = torch.arange(k.shape[1])[None, :]
    if alibi_slopes is not None:
        s = s - alibi_slopes.double()[:, None, None] * (p - j).abs()
    if bias is not None:
        s = s + bias.double()
    seen = torch.ones_like(p - j, dtype=torch.bool)
    if causal:
        seen = seen & (j <= p)
    if window[0] is not None:
        seen = seen & (j >= p - window[0])
    if window[1] is not None:
        seen = seen & (j <= p + window[1])
    if mask is not None:
        seen = seen & mask
    s = s.masked_fill(~seen, -math.inf)
    if sink is not None:
        s = torch.cat([s, sink.double()[None, :, None, None].expand(*s.shape[:3], 1)], -1)
    lse = torch.logsumexp(s, -1)
    w = torch.where(torch.isinf(s), 0.0, torch.exp(s - torch.where(torch.isinf(lse), 0.0, lse)[..., None]))
    return torch.einsum("bhij,bjhd->bihd", w[..., :k.shape[1]], v), lse


def qkv(batch: int, seq_q: int, seq_kv: int, heads_q: int, heads_kv: int, head_dim: int, head_dim_v: int | None = None,
        dtype: torch.dtype = torch.float32, grad: bool = False, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, Sq, Hq, D), k and v (B, Skv, Hkv, D or Dv), normal."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((batch, seq_q, heads_q, head_dim), (batch, seq_kv, heads_kv, head_dim),
              (batch, seq_kv, heads_kv, head_dim_v or head_dim))
    q, k, v = (torch.randn(shape, generator=g).to(dtype).requires_grad_(grad) for shape in shapes)
    return q, k, v


def starts(*lengths: int) -> Tensor:
    """cu_seqlens of these lengths, int32."""
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def worst(a: Tensor, b: Tensor) -> float:
    """max |a - b| in f64; 0 for empty tensors; equal infinities count as equal."""
    assert a.shape == b.shape, (a.shape, b.shape)
    a, b = a.detach().double(), b.detach().double()
    gap = torch.where(a == b, 0.0, (a - b).abs())
    return float(gap.max()) if gap.numel() else 0.0
