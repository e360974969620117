"""flash_attn_interface, version 3: the public functions, and the private ones below them.

Besides flash-attn 3's arguments, s_aux (Hq), an attention sink as serving engines' forks have it, is taken by the three
functions that can use it; it is differentiable. num_splits, pack_gqa, sm_margin, deterministic and scheduler_metadata
tune a GPU and change nothing here. docs/flash_attn.md lists where regard differs and why.
"""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn import _dialect, _fa3
from regard.flash_attn._dialect import maybe_contiguous, round_multiple
from regard.flash_attn.fa3._functions import FlashAttnFunc, FlashAttnQKVPackedFunc, FlashAttnVarlenFunc
from regard.flash_attn.fa3._private import _flash_attn_backward, _flash_attn_forward, forward

__all__ = [
    "FlashAttnFunc", "FlashAttnQKVPackedFunc", "FlashAttnVarlenFunc", "_flash_attn_backward", "_flash_attn_forward",
    "flash_attn_combine", "flash_attn_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func",
    "flash_attn_with_kvcache", "get_scheduler_metadata", "maybe_contiguous", "round_multiple",
]

__version__ = "3.0.0"

Window = Sequence[int] | Tensor
Maybe = Tensor | None


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Maybe = None,
    q_descale: Maybe = None,
    k_descale: Maybe = None,
    v_descale: Maybe = None,
    window_size: Window = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
    s_aux: Maybe = None,
) -> Any:
    """Attention, differentiable in q, k, v and s_aux (not with qv or fp8).

    q: (B, Sq, Hq, D). k: (B, Skv, Hkv, D). v: (B, Skv, Hkv, Dv). f32, f16, bf16, or all three f8e4m3 with q_descale,
    k_descale, v_descale f32 (B, Hkv). qv: (B, Sq, Hq, Dv), a second query against v. window_size: (left, right),
    negative: all. attention_chunk: > 0 keeps a query to the chunk of its position. s_aux: (Hq), joins the softmax with
    no value.
    Returns out (B, Sq, Hq, Dv), bf16 for fp8; with return_attn_probs (out, softmax_lse f32 (B, Hq, Sq)).
    """
    return FlashAttnFunc.apply(
        q, k, v, softmax_scale, causal, qv, q_descale, k_descale, v_descale, window_size, attention_chunk, softcap,
        num_splits, pack_gqa, deterministic, sm_margin, return_attn_probs, s_aux,
    )


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    q_descale: Maybe = None,
    k_descale: Maybe = None,
    v_descale: Maybe = None,
    window_size: Window = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    deterministic: bool = False,
    num_heads_q: int | None = None,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Any:
    """flash_attn_func of qkv (B, S, 3, H, D), or (B, S, Hq + 2 Hkv, D) with num_heads_q."""
    return FlashAttnQKVPackedFunc.apply(
        qkv, softmax_scale, causal, q_descale, k_descale, v_descale, window_size, attention_chunk, softcap,
        deterministic, num_heads_q, sm_margin, return_attn_probs,
    )


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    seqused_q: Maybe = None,
    seqused_k: Maybe = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Maybe = None,
    q_descale: Maybe = None,
    k_descale: Maybe = None,
    v_descale: Maybe = None,
    window_size: Window = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
    s_aux: Maybe = None,
) -> Any:
    """flash_attn_func of packed sequences: q (Tq, Hq, D), k (Tk, Hkv, D), v (Tk, Hkv, Dv).

    cu_seqlens_q, cu_seqlens_k: (B + 1) int32; None for a q, or k and v, that are dense. seqused_q, seqused_k: (B), how
    many tokens of each sequence count. Returns out (Tq, Hq, Dv), or (out, softmax_lse (Hq, Tq)).
    """
    return FlashAttnVarlenFunc.apply(
        q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal,
        qv, q_descale, k_descale, v_descale, window_size, attention_chunk, softcap, num_splits, pack_gqa,
        deterministic, sm_margin, return_attn_probs, s_aux,
    )


def flash_attn_combine(
    out_partial: Tensor, lse_partial: Tensor, out: Maybe = None, out_dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Merges partial results over disjoint keys.

    out_partial: (splits, B, S, H, Dv) or (splits, T, H, Dv). lse_partial: (splits, B, S, H) or (splits, T, H), f32.
    Returns (out, lse): out (B, S, H, Dv) in out_dtype or out_partial's type, written to `out` if given; lse f32 (B, S,
    H), heads last, unlike the forward's. -inf and +inf both mark a partial result that saw no key.
    """
    if lse_partial.shape != out_partial.shape[:-1]:
        raise Error("lse_partial", str(tuple(lse_partial.shape)), f"shape {tuple(out_partial.shape[:-1])}")
    lse = torch.where(torch.isposinf(lse_partial), -torch.inf, lse_partial.float())
    top = lse.amax(0, keepdim=True)
    weights = torch.exp(lse - torch.where(torch.isneginf(top), 0.0, top))
    total = weights.sum(0)
    parts = torch.where(weights[..., None] == 0, 0.0, out_partial.float())
    merged = (weights[..., None] * parts).sum(0) / torch.where(total == 0, 1.0, total)[..., None]
    merged_lse = top[0] + torch.log(total)
    merged_lse = torch.where(total == 0, -torch.inf, merged_lse)
    if out is not None:
        if out.shape != merged.shape:
            raise Error("out", str(tuple(out.shape)), f"shape {tuple(merged.shape)}")
        return out.copy_(merged), merged_lse
    return merged.to(out_partial.dtype if out_dtype is None else out_dtype), merged_lse


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Maybe = None,
    v: Maybe = None,
    qv: Maybe = None,
    rotary_cos: Maybe = None,
    rotary_sin: Maybe = None,
    cache_seqlens: int | Tensor | None = None,
    cache_batch_idx: Maybe = None,
    cache_leftpad: Maybe = None,
    page_table: Maybe = None,
    cu_seqlens_q: Maybe = None,
    cu_seqlens_k_new: Maybe = None,
    max_seqlen_q: int | None = None,
    rotary_seqlens: Maybe = None,
    q_descale: Maybe = None,
    k_descale: Maybe = None,
    v_descale: Maybe = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    scheduler_metadata: Maybe = None,
    num_splits: int = 0,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
    return_softmax_lse: bool = False,
    s_aux: Maybe = None,
) -> Any:
    """Attention over a KV cache, to which k and v, if given, are appended in place first. Not differentiable.

    q: (B, Sq, Hq, D), or (Tq, Hq, D) with cu_seqlens_q. k_cache: (B', S, Hkv, D), v_cache (B', S, Hkv, Dv), or pages
    (n, page_size, Hkv, D | Dv) with page_table (B, max_pages). k, v: (B, Snew, Hkv, D | Dv), or packed with
    cu_seqlens_k_new.
    cache_seqlens: (B) int32 or one integer for all; None is the whole cache, and an error where k is given.
    cache_batch_idx: (B), rows of the cache, or of the page table. cache_leftpad: (B). rotary_cos, rotary_sin:
    (positions, rotary_dim / 2), from position cache_seqlens on, or from rotary_seqlens (B).
    Returns out; with return_softmax_lse (out, softmax_lse, out_accum, softmax_lse_accum), the last two empty: regard
    keeps no partial results.
    """
    left, right = _dialect.window_pair(window_size)
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if cache.numel() and cache.stride(-1) != 1:
            raise Error(name, f"last stride {cache.stride(-1)}", "a contiguous last dim, since it is written in place")
    batch = q.shape[0] if cu_seqlens_q is None else cu_seqlens_q.shape[0] - 1
    if cache_seqlens is not None:
        cache_seqlens = _dialect.lengths(cache_seqlens, batch, 0, "cache_seqlens", q.device)
    out, lse = forward(
        q, k_cache, v_cache, k, v, cu_seqlens_k_new=cu_seqlens_k_new, kv_batch_idx=cache_batch_idx,
        rotary_cos=rotary_cos, rotary_sin=rotary_sin, rotary_seqlens=rotary_seqlens,
        rotary_interleaved=rotary_interleaved, return_lse=return_softmax_lse, qv=qv, cu_seqlens_q=cu_seqlens_q,
        seqused_k=cache_seqlens, page_table=page_table, leftpad=cache_leftpad, q_descale=q_descale,
        k_descale=k_descale, v_descale=v_descale, softmax_scale=softmax_scale, causal=causal, left=left, right=right,
        chunk=attention_chunk, softcap=softcap, sink=s_aux, names=_fa3.CACHE_NAMES,
    )
    return (out, lse, q.new_empty(0, dtype=torch.float32), q.new_empty(0, dtype=torch.float32)) if return_softmax_lse else out


def get_scheduler_metadata(
    batch_size: int,
    max_seqlen_q: int,
    max_seqlen_k: int,
    num_heads_q: int,
    num_heads_kv: int,
    headdim: int,
    cache_seqlens: Tensor,
    qkv_dtype: torch.dtype = torch.bfloat16,
    headdim_v: int | None = None,
    cu_seqlens_q: Maybe = None,
    cu_seqlens_k_new: Maybe = None,
    cache_leftpad: Maybe = None,
    page_size: int | None = None,
    max_seqlen_k_new: int = 0,
    causal: bool = False,
    window_size: Window = (-1, -1),
    attention_chunk: int = 0,
    has_softcap: bool = False,
    num_splits: int = 0,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
) -> Tensor:
    """An int32 tensor (batch_size + 1) to hand to flash_attn_with_kvcache; it plans work for a GPU and is zero here."""
    _dialect.window_pair(window_size)
    if num_heads_kv <= 0 or num_heads_q % num_heads_kv:
        raise Error("num_heads_q", str(num_heads_q), f"a multiple of num_heads_kv {num_heads_kv}")
    if cache_seqlens.shape != (batch_size,):
        raise Error("cache_seqlens", str(tuple(cache_seqlens.shape)), f"shape ({batch_size},)")
    return torch.zeros(batch_size + 1, dtype=torch.int32, device=cache_seqlens.device)
