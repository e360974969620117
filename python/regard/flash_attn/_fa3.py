"""flash-attn 3 and 4 calls: one function for every layout of q and of the cache, and the autograd they share.

Both follow regard's law for out and lse. q may be dense (B, Sq, Hq, D) or packed with cu_seqlens_q; k and v dense,
packed with cu_seqlens_k, or pages with page_table; a cache may be appended to.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import regard
from regard import Error
from regard.flash_attn import _call, _dialect
from regard.flash_attn._call import Call

Maybe = Tensor | None

NAMES = _dialect.COMMON_NAMES | {"block_table": "page_table", "seqlens_kv": "seqused_k"}
CACHE_NAMES = _dialect.CACHE_NAMES | {"block_table": "page_table"}


def build(
    *, softmax_scale: float | None = None, causal: bool = False, left: int = -1, right: int = -1, chunk: int = 0,
    softcap: float | None = 0.0, qv: Maybe = None, q_descale: Maybe = None, k_descale: Maybe = None,
    v_descale: Maybe = None, cu_seqlens_q: Maybe = None, cu_seqlens_k: Maybe = None, seqused_q: Maybe = None,
    seqused_k: Maybe = None, leftpad: Maybe = None, sink: Maybe = None, page_table: Maybe = None,
    max_seqlen_q: int | None = None, max_seqlen_k: int | None = None, names: dict[str, str] = NAMES,
) -> Call:
    """The regard call of these arguments, without append; with page_table, seqused_k are the lengths."""
    options = _dialect.mask_options(softmax_scale, causal, left, right, softcap, chunk)
    if q_descale is not None:
        options["q_descale"] = _dialect.float32(q_descale)
    if k_descale is not None:
        options["k_descale"] = _dialect.float32(k_descale)
    if v_descale is not None:
        options["v_descale"] = _dialect.float32(v_descale)
    if qv is not None:
        options["qv"] = _dialect.maybe_contiguous(qv.detach())
    if sink is not None:
        options["sink"] = sink.detach().contiguous()
    if leftpad is not None:
        options["leftpad"] = _dialect.int32(leftpad, "leftpad_k")
    if seqused_q is not None:
        options["seqused_q"] = _dialect.int32(seqused_q, "seqused_q")
    paged: dict[str, Any] = {}
    if page_table is not None:
        paged["block_table"] = _dialect.int32(page_table, "page_table")
        paged["seqlens_kv"] = _dialect.int32(seqused_k, "seqused_k")
    elif seqused_k is not None:
        options["seqused_kv"] = _dialect.int32(seqused_k, "seqused_k")
    cu_q, cu_k = _dialect.int32(cu_seqlens_q, "cu_seqlens_q"), _dialect.int32(cu_seqlens_k, "cu_seqlens_k")
    table = cu_q if cu_q is not None else cu_k
    if table is not None:
        options.update(_dialect.bounds(table, max_seqlen_q, max_seqlen_k))
    return Call(options, cu_q, cu_k, paged, names)


def sink_for(q: Tensor, sink: Maybe) -> Maybe:
    """A sink in a type that regard takes: f32 or q's; differentiable."""
    return sink if sink is None or sink.dtype in (torch.float32, q.dtype) else sink.float()


def run(q: Tensor, k: Tensor, v: Tensor, call: Call, return_lse: bool = True, **extra: Any) -> tuple[Tensor, Any]:
    """out and lse of a call without append."""
    unstrided = _dialect.maybe_contiguous
    return _call.forward(unstrided(q), unstrided(k), unstrided(v), call, return_lse, **extra)


def run_cache(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, call: Call, k: Maybe, v: Maybe, *, cu_seqlens_k_new: Maybe,
    kv_batch_idx: Maybe, rotary_cos: Maybe, rotary_sin: Maybe, rotary_seqlens: Maybe, rotary_interleaved: bool,
    return_lse: bool, **extra: Any,
) -> tuple[Tensor, Any]:
    """out and lse over a cache, appended to in place first where k is given. call.cu_seqlens_kv is None."""
    options = dict(call.options)
    cu_q, table = call.cu_seqlens_q, call.paged.get("block_table")
    batch = q.shape[0] if cu_q is None else cu_q.shape[0] - 1
    seqlens = call.paged.get("seqlens_kv", options.pop("seqused_kv", None))
    if k is not None and seqlens is None:
        raise Error("cache_seqlens", "None", "lengths of the cache, since k is to be appended at their end")
    if rotary_cos is not None and k is None:
        raise Error("k", "None", "new keys, since rotary_cos is given")
    whole = k_cache.shape[1] * (1 if table is None else table.shape[1])
    seqlens = _dialect.lengths(seqlens, batch, whole, "cache_seqlens", q.device)
    index = _dialect.int32(kv_batch_idx, "cache_batch_idx")
    if cu_q is not None and table is None:
        # A dense cache is a paged one whose pages are its rows.
        table = (torch.arange(batch, dtype=torch.int32, device=q.device) if index is None else index)[:, None].contiguous()
        index = None
    if index is not None:
        options["cache_batch_idx"] = index
    if table is not None:
        options["block_table"] = table
    if cu_q is not None:
        options["cu_seqlens_q"] = cu_q
    if cu_seqlens_k_new is not None:
        options["cu_seqlens_new"] = _dialect.int32(cu_seqlens_k_new, "cu_seqlens_k_new")
    if rotary_cos is not None:
        options["rotary_cos"] = _dialect.rotary_table(rotary_cos, q)
        options["rotary_sin"] = _dialect.rotary_table(rotary_sin, q)
        options["rotary"] = "interleaved" if rotary_interleaved else "half"
        if rotary_seqlens is not None:
            options["rotary_seqlens"] = _dialect.int32(rotary_seqlens, "rotary_seqlens")
    try:
        result: Any = regard.with_kvcache(
            _dialect.maybe_contiguous(q), k_cache, v_cache, _dialect.maybe_contiguous(k),
            _dialect.maybe_contiguous(v), cache_seqlens=seqlens, return_lse=return_lse, **options, **extra,
        )
    except Error as error:
        raise _dialect.renamed(error, call.names) from None
    return result if return_lse else (result, None)


def lse_out(lse: Tensor, k: Tensor, call: Call) -> Tensor:
    """flash-attn 3's lse: regard's, but +inf where k has no rows at all (and there is no sink)."""
    rows = k.shape[0] if k.ndim == 3 else k.shape[0] * k.shape[1]
    return torch.full_like(lse, math.inf) if rows == 0 and "sink" not in call.options else lse


class Attention(_call.AutogradFunction):
    """(out, lse) of q, k, v and a sink or None; lse is regard's, and differentiable."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, sink: Any, call: Any) -> Any:
        out, lse = run(q, k, v, call)
        _call.save(ctx, call, q, k, v, out, lse, sink)
        return out, lse

    @staticmethod
    @_call.once_differentiable
    def backward(ctx: Any, dout: Any, dlse: Any) -> Any:
        q, k, v, out, lse, sink = ctx.saved_tensors
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        q, k, v = (_dialect.maybe_contiguous(x) for x in (q, k, v))
        dsink = _call.gradients(ctx, dout, dlse, q, k, v, out, lse, dq, dk, dv, sink)
        return dq, dk, dv, dsink, None


def attend(q: Tensor, k: Tensor, v: Tensor, sink: Maybe, call: Call, return_lse: bool) -> tuple[Tensor, Any]:
    """out and lse (None unless asked for or a gradient is wanted), differentiable in q, k, v and sink."""
    if _call.needs_grad(q, k, v, sink, call.options.get("qv")):
        out, lse = Attention.apply(q, k, v, sink, call)
        return out, lse
    return run(q, k, v, call, return_lse)
