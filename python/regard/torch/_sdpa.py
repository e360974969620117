"""torch's scaled_dot_product_attention in regard's terms.

q (..., Hq, L, E), k (..., Hkv, S, E), v (..., Hkv, S, Ev), out (..., Hq, L, Ev) in q's stride order. The differences
from `attention`: heads stand before rows, `is_causal` is aligned at the top left, leading dims broadcast.
"""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.bias import CausalBias, CausalVariant

from . import _backends, _call, _log
from ._api import attention
from ._error import error
from ._mode import autocast_type, is_direct
from ._options import Options, plain_call


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention, computed by regard.

    query (..., Hq, L, E); key (..., Hkv, S, E); value (..., Hkv, S, Ev); f32, f16 or bf16, on the CPU or CUDA.
    Leading dims and, where one side has a single head, heads broadcast; with enable_gqa Hq may be a multiple of Hkv. attn_mask: bool
    (True attends) or float (added; may require grad), 2 to as many dims as the scores (..., Hq, L, S), broadcast; or a
    torch.nn.attention.bias.CausalBias. dropout_p always drops, as torch's does; its seed comes from torch's default
    generator.

    Returns (..., Hq, L, Ev). A row that sees no key is 0. Raises regard.Error.
    """
    if isinstance(attn_mask, CausalBias):
        if is_causal:
            raise error("is_causal", True, "False where attn_mask is a CausalBias")
        is_causal = True
        bottom_right = attn_mask.variant == CausalVariant.LOWER_RIGHT
        attn_mask = None
    else:
        bottom_right = False
        if attn_mask is not None and is_causal:
            raise error("is_causal", True, "False where attn_mask is given")
    plain = _is_plain(query.shape, key.shape, value.shape, enable_gqa)
    if plain:
        q, k, v = query, key, value
        lead, heads = tuple(query.shape[:1]), query.shape[1]
    else:
        lead = _leading(query, key, value)
        heads, heads_kv = _heads(query, key, value, enable_gqa)
        q, k, v = _four_dims(query, lead, heads), _four_dims(key, lead, heads_kv), _four_dims(value, lead, heads_kv)
    options: Options = {}
    if attn_mask is not None:
        attn_mask = _four_dim_mask(attn_mask, (*lead, heads, query.shape[-2], key.shape[-2]), query.dtype)
        options["mask" if attn_mask.dtype == torch.bool else "bias"] = attn_mask
    if is_causal:
        options["causal"] = True
        # Where the lengths agree both alignments are one; on a GPU the offsets would be a tensor to fill.
        if not (bottom_right or (query.is_cuda and query.shape[-2] == key.shape[-2])):
            options["q_offset"] = 0
    if scale is not None:
        options["scale"] = scale
    if dropout_p:
        options["dropout"] = dropout_p
    if _backends.current is not None:
        options["kernel"] = _backends.current
    if plain and not _log.enabled and autocast_type(q) is None and "kernel" not in options:
        if is_direct(q, k, v, options):
            return _call.forward_heads_first(q, k, v, plain_call(options))
    out = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options).transpose(1, 2)
    if plain or len(lead) == 1:
        return out
    shape = (*lead, heads, query.shape[-2], value.shape[-1])
    return out.reshape(shape if max(query.dim(), key.dim(), value.dim()) > 2 else shape[-2:])


def _is_plain(query: torch.Size, key: torch.Size, value: torch.Size, enable_gqa: bool) -> bool:
    """Four dims, one batch size, numbers of heads that go together: nothing to broadcast; the case to be cheap in."""
    if not len(query) == len(key) == len(value) == 4:
        return False
    (batch, heads, *_), (batch_k, heads_k, *_), (batch_v, heads_v, *_) = query, key, value
    return bool(batch == batch_k == batch_v and heads_k == heads_v and
                (heads == heads_k or enable_gqa and heads_k > 0 and heads % heads_k == 0))


def _leading(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """The dims before (heads, rows, width), broadcast."""
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.dim() < 2:
            raise error(name, f"{t.dim()} dims", "at least 2: (..., rows, width)")
    leads = [t.shape[:-3] for t in (query, key, value)]
    if leads[0] == leads[1] == leads[2]:
        return tuple(leads[0])
    try:
        return tuple(torch.broadcast_shapes(*leads))
    except RuntimeError:
        raise error("batch", " and ".join(str(tuple(lead)) for lead in leads), "leading dims that broadcast") from None


def _heads(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[int, int]:
    """How many heads q goes in with, and how many k and v."""
    q, k, v = (t.shape[-3] if t.dim() > 2 else 1 for t in (query, key, value))
    if enable_gqa and k == v and k > 0 and q % k == 0:
        return q, k
    if enable_gqa:
        raise error("heads", f"{q} of query, {k} of key, {v} of value", "query heads a multiple of key and value heads")
    kv = v if k == 1 else k
    if v not in (1, kv) or q not in (1, kv) and kv != 1:
        raise error("heads", f"{q} of query, {k} of key, {v} of value",
                    "equal numbers, or 1; fewer key and value heads need enable_gqa=True")
    return (kv if q == 1 else q), kv


def _four_dims(t: Tensor, lead: tuple[int, ...], heads: int) -> Tensor:
    """(B, heads, rows, width), B being all leading dims in one."""
    if t.dim() == 2:
        t = t.unsqueeze(0)
    if t.dim() == len(lead) + 3 == 4 and t.shape[0] == lead[0] and t.shape[1] == heads:
        return t
    t = t.expand(*lead, heads, *t.shape[-2:])
    return t.unsqueeze(0) if not lead else t if len(lead) == 1 else t.flatten(0, len(lead) - 1)


def _four_dim_mask(attn_mask: Tensor, scores: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """attn_mask as (B | 1, Hq | 1, L | 1, S | 1): boolean, or of a type that goes with q's."""
    if not 2 <= attn_mask.dim() <= len(scores):
        raise error("attn_mask", f"{attn_mask.dim()} dims", f"2 to {len(scores)} dims that broadcast to {scores}")
    lead = len(scores) - 3
    if attn_mask.dim() > 4 or (lead > 1 and attn_mask.dim() == 4):
        attn_mask = attn_mask.expand(*scores[:lead], *attn_mask.shape[-3:]).flatten(0, lead - 1)
    elif attn_mask.dim() < 4:
        attn_mask = attn_mask.reshape((1,) * (4 - attn_mask.dim()) + tuple(attn_mask.shape))
    if attn_mask.dtype in (torch.bool, dtype, torch.float32):
        return attn_mask
    if not attn_mask.dtype.is_floating_point:
        raise error("attn_mask.dtype", attn_mask.dtype, "torch.bool or a floating type")
    return attn_mask.float()
