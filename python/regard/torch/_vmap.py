"""Batching rules: what torch.vmap does with the ops.

Dense attention takes the mapped dim into its batch, one call for all of it, whenever no tensor says otherwise; a
mapped sink, dropout (each sample has its own mask), and packed sequences run sample by sample, which gives the same
numbers more slowly. A mapped KV cache is refused: fold the dim into B instead.
"""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._error import error
from ._options import COUNT, NAMES

_FORWARD_TENSORS = 3   # q, k, v
_BACKWARD_TENSORS = 7  # dout, dlse, q, k, v, out, lse
_BACKWARD_OPTIONS = 9  # those, and two cu_seqlens
# Options by what their first dim is: the batch, the batch or 1, or nothing that a batch could go into.
_PER_SEQUENCE = ("leftpad", "q_offset", "seqused_q", "seqused_kv", "q_descale", "k_descale", "v_descale", "qv")
_BROADCAST = ("bias", "mask")
_NOT_FOLDED = ("sink", "rng")


def _sample_by_sample(op: Callable[..., Any], size: int, dims: Sequence[int | None], args: Sequence[Any]) -> Any:
    results = [op(*(a if d is None else a.select(d, n) for a, d in zip(args, dims))) for n in range(size)]
    stacked = tuple(torch.stack(parts) for parts in zip(*results))
    return stacked, (0,) * len(stacked)


def _fold(t: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """(B, ...), mapped at `dim` or not at all, as (size * B, ...)."""
    if t is None:
        return None
    t = t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
    return t.reshape(size * t.shape[1], *t.shape[2:])


def _fold_options(options: Sequence[Any], dims: Sequence[int | None], size: int, batch: int) -> list[Any] | None:
    """The options of one call over size * batch sequences; None where there is no such call."""
    given = dict(zip(NAMES, options))
    mapped = dict(zip(NAMES, dims))
    if given["dropout"] or any(mapped[name] is not None for name in _NOT_FOLDED):
        return None
    for name in _PER_SEQUENCE:
        given[name] = _fold(given[name], mapped[name], size)
    slopes = given["alibi_slopes"]
    if slopes is not None and (mapped["alibi_slopes"] is not None or slopes.dim() == 2):
        if slopes.dim() - (mapped["alibi_slopes"] is not None) == 1:  # (Hq) of each sample: one row a sequence
            at = mapped["alibi_slopes"]
            given["alibi_slopes"] = slopes.movedim(at, 0).repeat_interleave(batch, 0)
        else:
            given["alibi_slopes"] = _fold(slopes, mapped["alibi_slopes"], size)
    for name in _BROADCAST:
        t, dim = given[name], mapped[name]
        if t is None or (dim is None and t.shape[0] == 1):
            continue
        first = 1 if dim == 0 else 0
        if t.shape[first] != batch:
            t = t.expand(*t.shape[:first], batch, *t.shape[first + 1:])
        given[name] = _fold(t, dim, size)
    return [given[name] for name in NAMES]


def _attention_forward(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
    op, size, n = torch.ops.regard.attention_forward, info.batch_size, _FORWARD_TENSORS
    batch = _batch_of(args[0], dims[0])
    options = _fold_options(args[n:n + COUNT], dims[n:n + COUNT], size, batch)
    if options is None:
        return _sample_by_sample(op, size, dims, args)
    tensors = [_fold(t, d, size) for t, d in zip(args[:n], dims)]
    return _unfold(op(*tensors, *options, args[-1]), size, batch)


def _attention_backward(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
    op, size, first = torch.ops.regard.attention_backward, info.batch_size, _BACKWARD_OPTIONS
    batch = _batch_of(args[2], dims[2])
    want_dbias, want_dsink = args[first + COUNT:]
    packed = args[_BACKWARD_TENSORS] is not None
    options, option_dims = list(args[first:first + COUNT]), list(dims[first:first + COUNT])
    at = NAMES.index("bias")
    shared_bias = want_dbias and option_dims[at] is None
    if shared_bias:  # a gradient for each sample: the bias as if each had its own
        options[at], option_dims[at] = options[at].expand(size, *options[at].shape), 0
    bias_batch = options[at].shape[1 if option_dims[at] == 0 else 0] if want_dbias else 0
    folded = None if packed or want_dsink else _fold_options(options, option_dims, size, batch)
    if folded is None:
        return _sample_by_sample(op, size, dims, args)
    tensors = [_fold(t, d, size) for t, d in zip(args[:_BACKWARD_TENSORS], dims)]
    dq, dk, dv, dbias, dsink = op(*tensors, None, None, *folded, want_dbias, want_dsink)
    gradients, _ = _unfold((dq, dk, dv), size, batch)
    if want_dbias:
        dbias = dbias.unflatten(0, (size, batch))
        dbias = dbias.sum(1, keepdim=True) if bias_batch == 1 else dbias
    return (*gradients, dbias, dsink), (0, 0, 0, 0 if want_dbias else None, None)


def _varlen_forward(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
    return _sample_by_sample(torch.ops.regard.varlen_forward, info.batch_size, dims, args)


def _with_kvcache(info: Any, dims: Sequence[int | None], *args: Any) -> Any:
    del dims, args
    raise error("with_kvcache", f"torch.vmap over {info.batch_size} samples",
                "no vmap: the cache is written in place; make the mapped dim part of the batch")


def _batch_of(q: Tensor, dim: int | None) -> int:
    return q.shape[1 if dim == 0 else 0]


def _unfold(results: Sequence[Tensor], size: int, batch: int) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    return tuple(r.unflatten(0, (size, batch)) for r in results), (0,) * len(results)


for _name, _rule in (("attention_forward", _attention_forward), ("attention_backward", _attention_backward),
                     ("varlen_forward", _varlen_forward), ("with_kvcache", _with_kvcache)):
    torch.library.register_vmap(f"regard::{_name}", _rule, lib=_ops.lib)
