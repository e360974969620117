"""flash_attn.layers.rotary: rotary position embedding, differentiable, also in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn._call import AutogradFunction, once_differentiable
from regard.flash_attn.ops.triton.rotary import apply_rotary

__all__ = [
    "ApplyRotaryEmb", "ApplyRotaryEmbKV_", "ApplyRotaryEmbQKV_", "RotaryEmbedding", "apply_rotary", "apply_rotary_emb",
    "apply_rotary_emb_func", "apply_rotary_emb_kv_", "apply_rotary_emb_qkv_", "apply_rotary_emb_torch", "rotate_half",
]


def rotate_half(x: Tensor, interleaved: bool = False) -> Tensor:
    """A quarter turn of every pair: (a, b) -> (-b, a). Pairs are halves of the last dim, or neighbours."""
    if interleaved:
        return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def apply_rotary_emb_torch(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """x (B, S, H, D) turned by cos, sin (S, rotary_dim / 2) or (B, S, rotary_dim / 2), in x's own arithmetic."""
    width = 2 * cos.shape[-1]
    if width > x.shape[-1]:
        raise Error("cos", str(tuple(cos.shape)), f"rotary_dim / 2 of at most half the head dim {x.shape[-1]}")
    cos, sin = (_both_halves(t, interleaved).unsqueeze(-2) for t in (cos, sin))
    turned = x[..., :width] * cos + rotate_half(x[..., :width], interleaved) * sin
    return torch.cat((turned, x[..., width:]), dim=-1)


def _both_halves(t: Tensor, interleaved: bool) -> Tensor:
    return t.repeat_interleave(2, dim=-1) if interleaved else torch.cat((t, t), dim=-1)


class ApplyRotaryEmb(AutogradFunction):
    """apply_rotary_emb; backward turns the gradient back."""

    @staticmethod
    def forward(
        ctx: Any, x: Any, cos: Any, sin: Any, interleaved: Any = False, inplace: Any = False, seqlen_offsets: Any = 0,
        cu_seqlens: Any = None, max_seqlen: Any = None,
    ) -> Any:
        ctx.save_for_backward(cos, sin)
        ctx.options = {"interleaved": interleaved, "seqlen_offsets": seqlen_offsets, "cu_seqlens": cu_seqlens}
        return apply_rotary(x, cos, sin, inplace=inplace, **ctx.options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Any) -> Any:
        cos, sin = ctx.saved_tensors
        return (apply_rotary(dout, cos, sin, conjugate=True, **ctx.options), *[None] * 7)


class ApplyRotaryEmbQKV_(AutogradFunction):
    """apply_rotary_emb_qkv_; v passes unturned."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Any, cos: Any, sin: Any, cos_k: Any = None, sin_k: Any = None, interleaved: Any = False,
        seqlen_offsets: Any = 0, num_heads_q: Any = None,
    ) -> Any:
        ctx.save_for_backward(cos, sin, cos_k, sin_k)
        ctx.options = {"interleaved": interleaved, "seqlen_offsets": seqlen_offsets}
        ctx.num_heads_q = num_heads_q
        return _turn_qkv(qkv, cos, sin, cos_k, sin_k, num_heads_q, **ctx.options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dqkv: Any) -> Any:
        cos, sin, cos_k, sin_k = ctx.saved_tensors
        turned = _turn_qkv(dqkv.clone(), cos, sin, cos_k, sin_k, ctx.num_heads_q, conjugate=True, **ctx.options)
        return (turned, *[None] * 7)


class ApplyRotaryEmbKV_(AutogradFunction):
    """apply_rotary_emb_kv_; v passes unturned."""

    @staticmethod
    def forward(ctx: Any, kv: Any, cos: Any, sin: Any, interleaved: Any = False, seqlen_offsets: Any = 0) -> Any:
        if kv.ndim != 5 or kv.shape[2] != 2:
            raise Error("kv", str(tuple(kv.shape)), "shape (B, S, 2, Hkv, D)")
        ctx.save_for_backward(cos, sin)
        ctx.options = {"interleaved": interleaved, "seqlen_offsets": seqlen_offsets}
        apply_rotary(kv[:, :, 0], cos, sin, inplace=True, **ctx.options)
        return kv

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dkv: Any) -> Any:
        cos, sin = ctx.saved_tensors
        dkv = dkv.clone()
        apply_rotary(dkv[:, :, 0], cos, sin, inplace=True, conjugate=True, **ctx.options)
        return (dkv, *[None] * 4)


def apply_rotary_emb(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool = False,
    inplace: bool = False,
    seqlen_offsets: int | Tensor = 0,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
) -> Tensor:
    """Rotary embedding of x (B, S, H, D), or packed (T, H, D) with cu_seqlens; arguments as apply_rotary.

    inplace: x is overwritten; go on with the returned tensor, which is the one that has a gradient.
    """
    out: Tensor = ApplyRotaryEmb.apply(x, cos, sin, interleaved, inplace, seqlen_offsets, cu_seqlens, max_seqlen)
    return out


apply_rotary_emb_func = apply_rotary_emb


def apply_rotary_emb_qkv_(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    cos_k: Tensor | None = None,
    sin_k: Tensor | None = None,
    interleaved: bool = False,
    seqlen_offsets: int | Tensor = 0,
    num_heads_q: int | None = None,
) -> Tensor:
    """Turns q and k inside qkv, in place, and returns qkv.

    qkv: (B, S, 3, H, D), or (B, S, Hq + 2 Hkv, D) with num_heads_q. cos_k, sin_k: a table of their own for k.
    """
    out: Tensor = ApplyRotaryEmbQKV_.apply(qkv, cos, sin, cos_k, sin_k, interleaved, seqlen_offsets, num_heads_q)
    return out


def apply_rotary_emb_kv_(
    kv: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False, seqlen_offsets: int | Tensor = 0
) -> Tensor:
    """Turns k inside kv (B, S, 2, Hkv, D), in place, and returns kv."""
    out: Tensor = ApplyRotaryEmbKV_.apply(kv, cos, sin, interleaved, seqlen_offsets)
    return out


def _turn_qkv(qkv: Tensor, cos: Tensor, sin: Tensor, cos_k: Tensor | None, sin_k: Tensor | None,
              num_heads_q: int | None, **options: Any) -> Tensor:
    q, k = _q_and_k(qkv, num_heads_q)
    apply_rotary(q, cos, sin, inplace=True, **options)
    apply_rotary(k, cos if cos_k is None else cos_k, sin if sin_k is None else sin_k, inplace=True, **options)
    return qkv


def _q_and_k(qkv: Tensor, num_heads_q: int | None) -> tuple[Tensor, Tensor]:
    if qkv.ndim == 5 and qkv.shape[2] == 3:
        return qkv[:, :, 0], qkv[:, :, 1]
    if qkv.ndim != 4:
        raise Error("qkv", str(tuple(qkv.shape)), "shape (B, S, 3, H, D) or (B, S, Hq + 2 Hkv, D)")
    if num_heads_q is None:
        raise Error("num_heads_q", "None", "the number of query heads in qkv (B, S, Hq + 2 Hkv, D)")
    heads_kv, odd = divmod(qkv.shape[2] - num_heads_q, 2)
    if odd or heads_kv < 0:
        raise Error("num_heads_q", str(num_heads_q), f"Hq of the {qkv.shape[2]} = Hq + 2 Hkv heads of qkv")
    return qkv[:, :, :num_heads_q], qkv[:, :, num_heads_q : num_heads_q + heads_kv]


class RotaryEmbedding(torch.nn.Module):
    """Rotary embedding with tables that grow with the longest sequence seen; with scale_base, xPos.

    dim: channels that turn. base: of the angles. interleaved: pairs of neighbours. scale_base: of xPos (512 is usual).
    Tables are computed in f32 and kept in the type of the tensors they turn.
    """

    def __init__(
        self, dim: int, base: float = 10000.0, interleaved: bool = False, scale_base: float | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.dim, self.base = dim, float(base)
        self.interleaved, self.scale_base = interleaved, scale_base
        even = torch.arange(0, dim, 2, device=device, dtype=torch.float32)
        self.register_buffer("inv_freq", self.base ** (-even / dim), persistent=False)
        scale = None if scale_base is None else (even + 0.4 * dim) / (1.4 * dim)
        self.register_buffer("scale", scale, persistent=False)
        self._seq_len_cached = 0
        self._cos_cached: Tensor | None = None
        self._sin_cached: Tensor | None = None
        self._cos_k_cached: Tensor | None = None
        self._sin_k_cached: Tensor | None = None

    def _update_cos_sin_cache(self, seqlen: int, device: Any = None, dtype: torch.dtype | None = None) -> None:
        cached = self._cos_cached
        same_device = cached is not None and (device is None or cached.device == torch.device(device))
        if cached is not None and same_device and seqlen <= self._seq_len_cached and cached.dtype == dtype and not (
            self.training and cached.is_inference()
        ):
            return
        self._seq_len_cached = seqlen
        # The buffers may have been cast with the model: the angles need f32.
        even = torch.arange(0, self.dim, 2, dtype=torch.float32, device=device)
        angles = torch.outer(torch.arange(seqlen, dtype=torch.float32, device=device), self.base ** (-even / self.dim))
        cos, sin = angles.cos(), angles.sin()
        if self.scale_base is None:
            self._cos_cached, self._sin_cached = cos.to(dtype), sin.to(dtype)
            return
        power = (torch.arange(seqlen, dtype=torch.float32, device=device) - seqlen // 2) / self.scale_base
        scale = ((even + 0.4 * self.dim) / (1.4 * self.dim)) ** power[:, None]
        self._cos_cached, self._sin_cached = (cos * scale).to(dtype), (sin * scale).to(dtype)
        self._cos_k_cached, self._sin_k_cached = (cos / scale).to(dtype), (sin / scale).to(dtype)

    def forward(
        self, qkv: Tensor, kv: Tensor | None = None, seqlen_offset: int | Tensor = 0, max_seqlen: int | None = None,
        num_heads_q: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Turns qkv, or q and kv, in place; returns qkv, or (q, kv).

        qkv: (B, S, 3, H, D) or (B, S, Hq + 2 Hkv, D) with num_heads_q; with kv (B, S, 2, Hkv, D) it is q (B, S, H, D).
        seqlen_offset: an int, or (B); a tensor needs max_seqlen, up to which the tables are made.
        """
        if max_seqlen is not None:
            self._update_cos_sin_cache(max_seqlen, qkv.device, qkv.dtype)
        elif isinstance(seqlen_offset, int):
            self._update_cos_sin_cache(qkv.shape[1] + seqlen_offset, qkv.device, qkv.dtype)
        if self._cos_cached is None or self._sin_cached is None:
            raise Error("max_seqlen", "None", "the longest position, since seqlen_offset is a tensor")
        cos, sin = self._cos_cached, self._sin_cached
        cos_k, sin_k = self._cos_k_cached, self._sin_k_cached  # None unless xPos
        if kv is None:
            return apply_rotary_emb_qkv_(qkv, cos, sin, cos_k, sin_k, self.interleaved, seqlen_offset, num_heads_q)
        q = apply_rotary_emb(qkv, cos, sin, self.interleaved, inplace=True, seqlen_offsets=seqlen_offset)
        cos_k, sin_k = cos if cos_k is None else cos_k, sin if sin_k is None else sin_k
        return q, apply_rotary_emb_kv_(kv, cos_k, sin_k, self.interleaved, seqlen_offset)
