"""One attention call in regard's terms, its forward, its gradients: what every flash-attn function comes down to.

A call is made once from a library's arguments (`_dialect.py` translates them) and then serves the forward pass and the
backward pass, so that both see the same options. Log-sum-exps in here are regard's: natural log, -inf for an empty row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

import torch
from torch import Tensor

import regard
from regard import Error
from regard.flash_attn import _dialect
from regard.flash_attn._dialect import COMMON_NAMES, maybe_contiguous, renamed

__all__ = [
    "AutogradFunction", "Call", "backward", "forward", "gradients", "maps", "needs_grad", "once_differentiable", "packed",
    "save", "unpacked_lse",
]

# The decorator, typed loosely: torch's type for it does not fit torch's own type of backward.
once_differentiable: Callable[[Callable[..., Any]], Any] = torch.autograd.function.once_differentiable


class AutogradFunction(torch.autograd.Function):
    """torch's, with a type for apply."""

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(slots=True)
class Call:
    """What the forward and the backward pass of one call share.

    options: keyword arguments that regard.attention and regard.attention_backward both take.
    cu_seqlens_q, cu_seqlens_kv: (B + 1) int32 of packed tensors; None for dense ones. Either may be packed alone.
    paged: keyword arguments of regard.varlen_attention that have no backward (block_table, seqlens_kv).
    names: what the caller's function calls regard's arguments, for errors.
    """

    options: dict[str, Any]
    cu_seqlens_q: Tensor | None = None
    cu_seqlens_kv: Tensor | None = None
    paged: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=lambda: COMMON_NAMES)

    @property
    def is_packed(self) -> bool:
        return self.cu_seqlens_q is not None or self.cu_seqlens_kv is not None or bool(self.paged)


def packed(x: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    """x (T, H, D) with its cu_seqlens; a dense x (B, S, H, D) is laid end to end and gets the cu_seqlens it implies."""
    if cu_seqlens is not None:
        return x, cu_seqlens
    batch, seqlen = x.shape[:2]
    return x.flatten(0, 1), torch.arange(batch + 1, dtype=torch.int32, device=x.device) * seqlen


def unpacked_lse(lse: Tensor, batch: int, seqlen: int) -> Tensor:
    """(Hq, B * Sq) of sequences of one length, as (B, Hq, Sq)."""
    return lse.reshape(lse.shape[0], batch, seqlen).transpose(0, 1).contiguous()


def forward(
    q: Tensor, k: Tensor, v: Tensor, call: Call, return_lse: bool, **extra: Any
) -> tuple[Tensor, Any]:
    """out, and lse or None. q (B, Sq, Hq, D) or packed (Tq, Hq, D); k, v likewise, or pages if call.paged is set."""
    try:
        return _forward(q, k, v, call, return_lse, **extra)
    except Error as error:
        raise renamed(error, call.names) from None


def _forward(
    q: Tensor, k: Tensor, v: Tensor, call: Call, return_lse: bool, **extra: Any
) -> tuple[Tensor, Any]:
    if call.cu_seqlens_q is None and call.cu_seqlens_kv is None and not call.paged:
        dense: Any = regard.attention(q, k, v, **call.options, **extra, return_lse=return_lse)
        return dense if return_lse else (dense, None)
    dense_q = call.cu_seqlens_q is None
    target = extra.pop("out", None) if dense_q else None
    (flat_q, k, v, cu_q, cu_kv), options = _packed_call(q, k, v, call)
    result: Any = regard.varlen_attention(flat_q, k, v, cu_q, cu_kv, return_lse=return_lse, **options, **extra)
    out, lse = result if return_lse else (result, None)
    if not dense_q:
        return out, lse
    out = out.reshape(*q.shape[:2], *out.shape[1:])
    out = out if target is None else target.copy_(out)
    return out, None if lse is None else unpacked_lse(lse, *q.shape[:2])


def _packed_call(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a call whose q or keys are packed, or whose keys are paged."""
    flat_q, cu_q = packed(q, call.cu_seqlens_q)
    cu_kv = None
    if not call.paged:
        k, cu_kv = packed(k, call.cu_seqlens_kv)
        v, _ = packed(v, call.cu_seqlens_kv)
    options = {**call.options, **call.paged}
    if call.cu_seqlens_q is None and options.get("qv") is not None:
        options["qv"] = options["qv"].flatten(0, 1)
    if call.cu_seqlens_q is None:
        options.update(_dialect.bounds(q, q.shape[1], None))
    return [flat_q, k, v, cu_q, cu_kv], options


def maps(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """The softmax before dropout, f32, and what dropout keeps, bool: (B, Hq, Sq, Skv) of the longest lengths."""
    tensors, options = _packed_call(q, k, v, call) if call.is_packed else ([q, k, v], call.options)
    options = {name: value for name, value in options.items() if not name.startswith("max_seqlen")}
    try:
        return regard.attention_probabilities(*tensors, **options), regard.dropout_mask(*tensors, **options)
    except Error as error:
        raise renamed(error, call.names) from None


def backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, call: Call, *, dq: Tensor, dk: Tensor,
    dv: Tensor, dlse: Tensor | None = None, dsink: bool = False,
) -> Tensor | None:
    """Writes dq, dk, dv (shapes of q, k, v, last dim contiguous); returns dsink f32 (Hq) if asked for.

    Raises Error for calls without a backward: paged k and v, fp8, qv.
    """
    if call.paged:
        raise Error("block_table", "given", "no block_table where gradients are wanted: gather the pages first")
    if call.options.get("qv") is not None:
        raise Error("qv", "given", "no qv where gradients are wanted")
    options = call.options
    cu_q = cu_kv = None
    writes: list[tuple[Tensor, Tensor]] = []
    if call.is_packed:
        cu_q, cu_kv = call.cu_seqlens_q, call.cu_seqlens_kv
        if cu_q is None:
            batch, seqlen = q.shape[:2]
            lse = lse.transpose(0, 1).flatten(1)
            dlse = None if dlse is None else dlse.transpose(0, 1).flatten(1)
            out, dout = out.flatten(0, 1), dout.flatten(0, 1)
            q, cu_q = packed(q, None)
            dq = _flat_target(dq, writes)
        if cu_kv is None:
            k, cu_kv = packed(k, None)
            v, _ = packed(v, None)
            dk, dv = _flat_target(dk, writes), _flat_target(dv, writes)
    try:
        grads: Any = regard.attention_backward(
            maybe_contiguous(dout), q, k, v, maybe_contiguous(out), lse.contiguous(),
            dlse=None if dlse is None else dlse.contiguous(), cu_seqlens_q=cu_q, cu_seqlens_kv=cu_kv, **options,
            dq=dq, dk=dk, dv=dv, dsink=dsink,
        )
    except Error as error:
        raise renamed(error, call.names) from None
    for target, source in writes:
        target.copy_(source.view(target.shape))
    return grads.dsink if dsink else None


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether a gradient of any of these is wanted."""
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return False


def save(ctx: Any, call: Call, *tensors: Tensor | None) -> None:
    """Keeps a call and its tensors for `gradients`: the inputs first, then out and lse, then the sink or None."""
    ctx.save_for_backward(*tensors)
    ctx.call = call
    ctx.set_materialize_grads(False)


def gradients(
    ctx: Any, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    dq: Tensor, dk: Tensor, dv: Tensor, sink: Tensor | None = None,
) -> Tensor | None:
    """Gradients of a saved call into dq, dk, dv; returns the sink's, in the sink's type, or None.

    dlse may belong to a translated lse: rows without a visible key are constants in every dialect, so theirs is
    dropped.
    """
    if dout is None:
        dout = torch.zeros_like(out)
    if dlse is not None:
        dlse = torch.where(torch.isneginf(lse), 0.0, dlse)
    wants_sink = sink is not None and sink.requires_grad
    dsink = backward(dout, q, k, v, out, lse, ctx.call, dq=dq, dk=dk, dv=dv, dlse=dlse, dsink=wants_sink)
    return None if dsink is None or sink is None else dsink.to(sink.dtype)


def _flat_target(x: Tensor, writes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """x (B, S, H, D) as (B * S, H, D) to be written: a view, or a new tensor that `writes` copies back."""
    if x.is_contiguous():
        return x.view(-1, *x.shape[2:])
    flat = torch.empty((x.shape[0] * x.shape[1], *x.shape[2:]), dtype=x.dtype, device=x.device)
    writes.append((x, flat))
    return flat
