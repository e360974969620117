"""flash_attn.flash_attn_interface, version 2: the public functions, and the private ones that other packages import.

Arguments and results are flash-attn's; docs/flash_attn.md lists where regard differs and why. Tensors live on the CPU
or on one CUDA device, in f32, f16 or bf16, any head dim up to 512. `deterministic` and `num_splits` change nothing:
regard is deterministic always.
Bad arguments raise regard.Error, a ValueError with .field, .value and .expected.
"""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

import regard
from regard import Error
from regard.flash_attn import _call, _dialect, _fa2
from regard.flash_attn._dialect import maybe_contiguous, round_multiple
from regard.flash_attn._fa2_functions import (
    FlashAttnFunc,
    FlashAttnKVPackedFunc,
    FlashAttnQKVPackedFunc,
    FlashAttnVarlenFunc,
    FlashAttnVarlenKVPackedFunc,
    FlashAttnVarlenQKVPackedFunc,
)
from regard.flash_attn._fa2_private import (
    _flash_attn_backward,
    _flash_attn_forward,
    _flash_attn_varlen_backward,
    _flash_attn_varlen_forward,
    _get_block_size_n,
    _wrapped_flash_attn_backward,
    _wrapped_flash_attn_forward,
    _wrapped_flash_attn_varlen_backward,
    _wrapped_flash_attn_varlen_forward,
)

__all__ = [
    "FlashAttnFunc", "FlashAttnKVPackedFunc", "FlashAttnQKVPackedFunc", "FlashAttnVarlenFunc",
    "FlashAttnVarlenKVPackedFunc", "FlashAttnVarlenQKVPackedFunc", "_flash_attn_backward", "_flash_attn_forward",
    "_flash_attn_varlen_backward", "_flash_attn_varlen_forward", "_get_block_size_n", "_wrapped_flash_attn_backward",
    "_wrapped_flash_attn_forward", "_wrapped_flash_attn_varlen_backward", "_wrapped_flash_attn_varlen_forward",
    "flash_attn_func", "flash_attn_kvpacked_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func", "flash_attn_varlen_qkvpacked_func", "flash_attn_with_kvcache",
    "maybe_contiguous", "round_multiple",
]

Window = Sequence[int] | Tensor


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """Attention, differentiable in q, k and v.

    q: (B, Sq, Hq, D). k, v: (B, Skv, Hkv, D), v also (B, Skv, Hkv, Dv); Hq a multiple of Hkv.
    dropout_p: drops with bits seeded from torch's default generator. softmax_scale: default 1/sqrt(D).
    causal: row i sees key j if j <= i + Skv - Sq. window_size: (left, right) keys around that diagonal, negative: all.
    softcap: > 0 caps scores at softcap * tanh(s / softcap). alibi_slopes: (Hq) or (B, Hq).
    Returns out (B, Sq, Hq, Dv); with return_attn_probs (out, softmax_lse, S_dmask), softmax_lse f32 (B, Hq, Sq),
    S_dmask of shape (0,) unless dropout_p > 0, else the probabilities before dropout, (B, Hq, Sq, Skv) with both
    lengths rounded up to 128, negative where dropped (-0.0 for a dropped zero).
    """
    if _call.needs_grad(q, k, v):
        return FlashAttnFunc.apply(
            q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
            return_attn_probs, True,
        )
    left, right = _dialect.window_pair(window_size)
    call = _fa2.dense(q, k, dropout_p, softmax_scale, causal, left, right, softcap, alibi_slopes)
    return _fa2.result(q, k, v, call, return_attn_probs)


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """flash_attn_func of qkv (B, S, 3, H, D); its gradient is one tensor, written without a copy."""
    _check_packed("qkv", qkv, 5, 3)
    if _call.needs_grad(qkv):
        return FlashAttnQKVPackedFunc.apply(
            qkv, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
            return_attn_probs, True,
        )
    q, k, v = qkv.unbind(2)
    return flash_attn_func(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs
    )


def flash_attn_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """flash_attn_func of q (B, Sq, Hq, D) and kv (B, Skv, 2, Hkv, D)."""
    _check_packed("kv", kv, 5, 2)
    if _call.needs_grad(q, kv):
        return FlashAttnKVPackedFunc.apply(
            q, kv, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
            return_attn_probs, True,
        )
    k, v = kv.unbind(2)
    return flash_attn_func(
        q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs
    )


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Any:
    """Attention of packed sequences, differentiable in q, k and v (not with block_table).

    q: (Tq, Hq, D). k, v: (Tk, Hkv, D). cu_seqlens_q, cu_seqlens_k: (B + 1) int32, first 0. max_seqlen_q, max_seqlen_k:
    the longest of each; they size S_dmask. block_table: (B, max_pages) int32; k and v are then pages (n, page_size,
    Hkv, D) of any page size, and cu_seqlens_k tells lengths alone.
    Returns out (Tq, Hq, Dv), or (out, softmax_lse (Hq, Tq), S_dmask); the rest as flash_attn_func.
    """
    if _call.needs_grad(q, k, v):
        return FlashAttnVarlenFunc.apply(
            q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
            window_size, softcap, alibi_slopes, deterministic, return_attn_probs, block_table, True,
        )
    left, right = _dialect.window_pair(window_size)
    call = _fa2.varlen(
        q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal, left, right,
        softcap, alibi_slopes, block_table=block_table,
    )
    return _fa2.result(q, k, v, call, return_attn_probs)


def flash_attn_varlen_qkvpacked_func(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """flash_attn_varlen_func of qkv (T, 3, H, D), cut by cu_seqlens (B + 1)."""
    _check_packed("qkv", qkv, 4, 3)
    if _call.needs_grad(qkv):
        return FlashAttnVarlenQKVPackedFunc.apply(
            qkv, cu_seqlens, max_seqlen, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
            deterministic, return_attn_probs, True,
        )
    q, k, v = qkv.unbind(1)
    return flash_attn_varlen_func(
        q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p, softmax_scale, causal, window_size, softcap,
        alibi_slopes, deterministic, return_attn_probs,
    )


def flash_attn_varlen_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """flash_attn_varlen_func of q (Tq, Hq, D) and kv (Tk, 2, Hkv, D)."""
    _check_packed("kv", kv, 4, 2)
    if _call.needs_grad(q, kv):
        return FlashAttnVarlenKVPackedFunc.apply(
            q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
            window_size, softcap, alibi_slopes, deterministic, return_attn_probs, True,
        )
    k, v = kv.unbind(1)
    return flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal, window_size,
        softcap, alibi_slopes, deterministic, return_attn_probs,
    )


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: int | Tensor | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    block_table: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> Any:
    """Attention over a KV cache, to which k and v, if given, are appended in place first. Not differentiable.

    q: (B, Sq, Hq, D). k_cache, v_cache: (B', S, Hkv, D), any strides but the last; with block_table (B, max_pages)
    int32 pages (n, page_size, Hkv, D) of any page size. k, v: (B, Snew, Hkv, D), written at cache_seqlens[b] + t.
    cache_seqlens: (B) int32 or one integer; None is the whole cache, and an error where k is given.
    cache_batch_idx: (B), rows of the cache, or of the block table. cache_leftpad: (B), where the keys of a row begin.
    rotary_cos, rotary_sin: (positions, rotary_dim / 2), turn k and q (needs k); rotary_interleaved pairs neighbours.
    Returns out (B, Sq, Hq, Dv), or (out, softmax_lse (B, Hq, Sq)).
    """
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if cache.numel() and cache.stride(-1) != 1:
            raise Error(name, f"last stride {cache.stride(-1)}", "a contiguous last dim, since it is written in place")
    if k is not None and cache_seqlens is None:
        raise Error("cache_seqlens", "None", "lengths of the cache, since k is to be appended at their end")
    if rotary_cos is not None and k is None:
        raise Error("k", "None", "new keys, since rotary_cos is given")
    left, right = _dialect.window_pair(window_size)
    options = _dialect.mask_options(softmax_scale, causal, left, right, softcap)
    whole = k_cache.shape[1] * (1 if block_table is None else block_table.shape[1])
    seqlens = _dialect.lengths(cache_seqlens, q.shape[0], whole, "cache_seqlens", q.device)
    if alibi_slopes is not None:
        alibi_slopes = options["alibi_slopes"] = alibi_slopes.detach().to(torch.float32).contiguous()
    if cache_leftpad is not None:
        options["leftpad"] = _dialect.int32(cache_leftpad, "cache_leftpad")
    if cache_batch_idx is not None:
        options["cache_batch_idx"] = _dialect.int32(cache_batch_idx, "cache_batch_idx")
    if block_table is not None:
        options["block_table"] = _dialect.int32(block_table, "block_table")
    if rotary_cos is not None:
        options["rotary_cos"] = _dialect.rotary_table(rotary_cos, q)
        options["rotary_sin"] = _dialect.rotary_table(rotary_sin, q)
        options["rotary"] = "interleaved" if rotary_interleaved else "half"
    try:
        result = regard.with_kvcache(
            maybe_contiguous(q), k_cache, v_cache, maybe_contiguous(k), maybe_contiguous(v), cache_seqlens=seqlens,
            return_lse=return_softmax_lse, **options,
        )
    except Error as error:
        raise _dialect.renamed(error, _dialect.CACHE_NAMES) from None
    if not return_softmax_lse:
        return result
    out, lse = result
    if alibi_slopes is not None and _dialect.alibi_in_lse(causal, left, right, whole):
        keys = seqlens if k is None else seqlens + k.shape[1]
        lse = lse + _dialect.alibi_term(alibi_slopes, q.shape[1], keys, options.get("leftpad"))
    return out, _dialect.empty_rows_inf(lse)


def _check_packed(name: str, x: Tensor, rank: int, parts: int) -> None:
    if x.ndim != rank or x.shape[-3] != parts:
        shape = f"(B, S, {parts}, H, D)" if rank == 5 else f"(T, {parts}, H, D)"
        raise Error(name, str(tuple(x.shape)), f"shape {shape}")
