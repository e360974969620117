"""flash_attn.cute.interface: attention with learnable sinks. Both functions return (out, lse).

lse is None unless return_lse or a gradient is wanted, and differentiable; with qv it comes heads last, as upstream's.
Score and mask functions are written in a GPU language upstream and are refused; so are block-sparse tensors and
gathered keys.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

from torch import Tensor

from regard import Error
from regard.flash_attn import _dialect, _fa3

__all__ = ["flash_attn_func", "flash_attn_varlen_func"]

Maybe = Tensor | None
Window = Sequence[int | None]

_NAMES = _fa3.NAMES | {"sink": "learnable_sink"}


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qv: Maybe = None,
    gather_kv_indices: Maybe = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (None, None),
    learnable_sink: Maybe = None,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    score_mod: Callable[..., Any] | None = None,
    score_mod_bwd: Callable[..., Any] | None = None,
    mask_mod: Callable[..., Any] | None = None,
    aux_tensors: list[Tensor] | None = None,
    aux_scalars: tuple[Any, ...] | None = None,
    block_sparse_tensors: Any = None,
    block_sparse_tensors_bwd: Any = None,
    return_lse: bool = False,
    gather_bwd_recompute_p: bool = False,
    gather_bwd_token_chunk: int | None = None,
) -> tuple[Tensor, Maybe]:
    """Attention, differentiable in q, k, v and learnable_sink (not with qv or fp8).

    q: (B, Sq, Hq, D). k: (B, Skv, Hkv, D). v: (B, Skv, Hkv, Dv). qv: (B, Sq, Hq, Dv). learnable_sink: (Hq), f32, f16 or
    bf16. window_size: (left, right), None: no bound. Returns (out (B, Sq, Hq, Dv), lse f32 (B, Hq, Sq) or None).
    """
    _refuse_programs(score_mod=score_mod, score_mod_bwd=score_mod_bwd, mask_mod=mask_mod, aux_tensors=aux_tensors,
                     aux_scalars=aux_scalars, block_sparse_tensors=block_sparse_tensors,
                     block_sparse_tensors_bwd=block_sparse_tensors_bwd, gather_kv_indices=gather_kv_indices,
                     gather_bwd_recompute_p=gather_bwd_recompute_p, gather_bwd_token_chunk=gather_bwd_token_chunk)
    return _finish(q, k, v, qv, learnable_sink, return_lse, window_size, softmax_scale=softmax_scale, causal=causal,
                   softcap=softcap)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qv: Maybe = None,
    cu_seqlens_q: Maybe = None,
    cu_seqlens_k: Maybe = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    min_seqlen_k: int | None = None,
    seqused_q: Maybe = None,
    seqused_k: Maybe = None,
    gather_kv_indices: Maybe = None,
    page_table: Maybe = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (None, None),
    learnable_sink: Maybe = None,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    score_mod: Callable[..., Any] | None = None,
    score_mod_bwd: Callable[..., Any] | None = None,
    mask_mod: Callable[..., Any] | None = None,
    block_sparse_tensors: Any = None,
    aux_tensors: list[Tensor] | None = None,
    aux_scalars: tuple[Any, ...] | None = None,
    return_lse: bool = False,
    scheduler_metadata: Any = None,
    seqlen_k_per_split: int | None = None,
    disable_scheduler_metadata: bool = False,
    gather_bwd_recompute_p: bool = False,
    gather_bwd_token_chunk: int | None = None,
) -> tuple[Tensor, Maybe]:
    """flash_attn_func where q, or k and v, or both, may be packed or paged.

    q: (Tq, Hq, D) with cu_seqlens_q (B + 1), else (B, Sq, Hq, D). k, v: (Tk, Hkv, D | Dv) with cu_seqlens_k, pages
    (n, page_size, Hkv, D | Dv) with page_table (B, max_pages), else dense. seqused_q, seqused_k: (B), how many tokens
    of each sequence count; None: all. Returns (out, lse or None), lse (Hq, Tq) for packed q. Pages have no gradients.
    """
    _refuse_programs(score_mod=score_mod, score_mod_bwd=score_mod_bwd, mask_mod=mask_mod, aux_tensors=aux_tensors,
                     aux_scalars=aux_scalars, block_sparse_tensors=block_sparse_tensors,
                     gather_kv_indices=gather_kv_indices, gather_bwd_recompute_p=gather_bwd_recompute_p,
                     gather_bwd_token_chunk=gather_bwd_token_chunk)
    if page_table is not None:
        if cu_seqlens_k is not None:
            raise Error("cu_seqlens_k", "given", "None where page_table is given: seqused_k holds the lengths")
        seqused_k = _dialect.lengths(seqused_k, page_table.shape[0], k.shape[1] * page_table.shape[1], "seqused_k",
                                      q.device)
    return _finish(q, k, v, qv, learnable_sink, return_lse, window_size, softmax_scale=softmax_scale, causal=causal,
                   softcap=softcap, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q,
                   seqused_k=seqused_k, max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k, page_table=page_table)


def _finish(
    q: Tensor, k: Tensor, v: Tensor, qv: Maybe, learnable_sink: Maybe, return_lse: bool, window_size: Window,
    **options: Any,
) -> tuple[Tensor, Any]:
    left, right = _dialect.window_pair(window_size)
    sink = _fa3.sink_for(q, learnable_sink)
    call = _fa3.build(left=left, right=right, qv=qv, sink=sink, names=_NAMES, **options)
    out, lse = _fa3.attend(q, k, v, sink, call, return_lse)
    return out, lse if lse is None or qv is None else lse.transpose(-1, -2).contiguous()


def _refuse_programs(**given: Any) -> None:
    for name, value in given.items():
        _dialect.refuse(name, value, "None: regard.attention takes a bias and a mask instead")
