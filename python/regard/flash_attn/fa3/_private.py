"""The functions below flash-attn 3's autograd: every option of the forward pass in one call, and the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn import _call, _dialect, _fa3

Maybe = Tensor | None


def _flash_attn_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_new: Maybe = None,
    v_new: Maybe = None,
    qv: Maybe = None,
    out_: Maybe = None,
    cu_seqlens_q: Maybe = None,
    cu_seqlens_k: Maybe = None,
    cu_seqlens_k_new: Maybe = None,
    seqused_q: Maybe = None,
    seqused_k: Maybe = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    page_table: Maybe = None,
    kv_batch_idx: Maybe = None,
    leftpad_k: Maybe = None,
    rotary_cos: Maybe = None,
    rotary_sin: Maybe = None,
    seqlens_rotary: Maybe = None,
    q_descale: Maybe = None,
    k_descale: Maybe = None,
    v_descale: Maybe = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size_left: int = -1,
    window_size_right: int = -1,
    attention_chunk: int = 0,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    scheduler_metadata: Maybe = None,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
    s_aux: Maybe = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(out, softmax_lse, out_accum, softmax_lse_accum); the last two are empty. Writes out_ if given."""
    out, lse = forward(
        q, k, v, k_new, v_new, out=out_, cu_seqlens_k_new=cu_seqlens_k_new, kv_batch_idx=kv_batch_idx,
        rotary_cos=rotary_cos, rotary_sin=rotary_sin, rotary_seqlens=seqlens_rotary,
        rotary_interleaved=rotary_interleaved, page_table=page_table, seqused_k=seqused_k, sink=s_aux,
        cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q, max_seqlen_q=max_seqlen_q,
        max_seqlen_k=max_seqlen_k, leftpad=leftpad_k, qv=qv,
        softmax_scale=softmax_scale, causal=causal, left=window_size_left, right=window_size_right,
        chunk=attention_chunk, softcap=softcap, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )
    return out, lse, q.new_empty(0, dtype=torch.float32), q.new_empty(0, dtype=torch.float32)


def forward(
    q: Tensor, k: Tensor, v: Tensor, k_new: Maybe = None, v_new: Maybe = None, *, out: Maybe = None,
    cu_seqlens_k_new: Maybe = None, kv_batch_idx: Maybe = None, rotary_cos: Maybe = None, rotary_sin: Maybe = None,
    rotary_seqlens: Maybe = None, rotary_interleaved: bool = True, return_lse: bool = True, **options: Any,
) -> tuple[Tensor, Any]:
    """out and softmax_lse of every layout; options are those of _fa3.build. Not differentiable."""
    cu_seqlens_q, cu_seqlens_k = options.get("cu_seqlens_q"), options.get("cu_seqlens_k")
    page_table = options.get("page_table")
    if cu_seqlens_k is not None:
        for name, value in (("page_table", page_table), ("k_new", k_new), ("cache_batch_idx", kv_batch_idx)):
            if value is not None:
                raise Error("cu_seqlens_k", "given", f"None where {name} is given: seqused_k holds the lengths")
    if page_table is not None and options.get("seqused_k") is None:
        batch = q.shape[0] if cu_seqlens_q is None else cu_seqlens_q.shape[0] - 1
        options["seqused_k"] = _dialect.lengths(None, batch, k.shape[1] * page_table.shape[1], "seqused_k", q.device)
    if (sink := options.get("sink")) is not None:
        options["sink"] = _fa3.sink_for(q, sink)
    call = _fa3.build(**options)
    extra = {} if out is None else {"out": out}
    # Packed q over a dense cache, and dense q over pages, are the cache call's too, without an append.
    one_sided = cu_seqlens_k is None and (cu_seqlens_q is None) == (page_table is not None)
    if one_sided or k_new is not None or rotary_cos is not None or kv_batch_idx is not None:
        out, lse = _fa3.run_cache(
            q, k, v, call, k_new, v_new, cu_seqlens_k_new=cu_seqlens_k_new, kv_batch_idx=kv_batch_idx,
            rotary_cos=rotary_cos, rotary_sin=rotary_sin, rotary_seqlens=rotary_seqlens,
            rotary_interleaved=rotary_interleaved, return_lse=return_lse, **extra,
        )
    else:
        out, lse = _fa3.run(q, k, v, call, return_lse, **extra)
    return out, lse if lse is None else _fa3.lse_out(lse, k, call)


@torch.no_grad()
def _flash_attn_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    cu_seqlens_q: Maybe = None,
    cu_seqlens_k: Maybe = None,
    sequed_q: Maybe = None,
    sequed_k: Maybe = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    dq: Maybe = None,
    dk: Maybe = None,
    dv: Maybe = None,
    softmax_scale: float | None = None,
    is_causal: bool = False,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float = 0.0,
    deterministic: bool = False,
    sm_margin: int = 0,
) -> Tensor:
    """Writes dq, dk, dv (those that are not None); returns softmax_d = rowsum(dout * out), f32, lengths padded to 128.

    softmax_lse may be +inf (no key at all); out and softmax_lse may be a ring's merged state.
    """
    call = _fa3.build(
        softmax_scale=softmax_scale, causal=is_causal, left=window_size_left, right=window_size_right, softcap=softcap,
        cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=sequed_q, seqused_k=sequed_k,
        max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k,
    )
    targets = [torch.empty_like(x) if d is None else d for d, x in ((dq, q), (dk, k), (dv, v))]
    lse = torch.where(torch.isposinf(softmax_lse), torch.finfo(torch.float32).max, softmax_lse.float())
    q, k, v = (_dialect.maybe_contiguous(x) for x in (q, k, v))
    _call.backward(dout, q, k, v, out, lse, call, dq=targets[0], dk=targets[1], dv=targets[2])
    return _dialect.softmax_d(dout, out, call.cu_seqlens_q)
