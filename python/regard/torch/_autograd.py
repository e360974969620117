"""Gradients of the ops: out and lse for q, k, v, bias and sink, by regard::attention_backward.

The forward's dropout mask is not stored: `rng` is, and the backward replays the mask from it. A backward through the
backward is refused, as is a gradient that attention has no formula for (paged or appended keys, ALiBi slopes, fp8).
"""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from . import _call, _ops
from ._error import error
from ._mode import inside_func, is_batch_of_gradients, is_direct
from ._options import COUNT, NAMES, TENSORS, pack

_BIAS, _SINK = NAMES.index("bias"), NAMES.index("sink")
_NO_GRADIENT = ("alibi_slopes", "qv", "q_descale", "k_descale", "v_descale")
_PAGES = ("block_table", "kv_indptr")


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor], packed: int) -> None:
    options = inputs[3 + packed:3 + packed + COUNT]
    extra = inputs[3:3 + packed]
    cu_q, cu_kv = extra[:2] if packed else (None, None)
    ctx.save_for_backward(*inputs[:3], *output, cu_q, cu_kv, *options[:TENSORS])
    ctx.scalars = options[TENSORS:]
    ctx.packed = packed
    ctx.inputs = len(inputs)
    ctx.paged = any(name in _PAGES and value is not None for name, value in zip(_ops.PACKED_NAMES, extra))
    ctx.set_materialize_grads(False)


def _setup_dense(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _setup(ctx, inputs, output, packed=0)


def _setup_packed(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _setup(ctx, inputs, output, packed=len(_ops.PACKED))


def _backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing: list[Tensor | None] = [None] * ctx.inputs
    if dout is None and dlse is None:
        return tuple(nothing)
    first = 3 + ctx.packed
    _check_differentiable(ctx, ctx.needs_input_grad[first:first + COUNT])
    q, k, v, out, lse, cu_q, cu_kv, *tensors = ctx.saved_tensors
    bias, sink = tensors[_BIAS], tensors[_SINK]
    want_dbias, want_dsink = ctx.needs_input_grad[first + _BIAS], ctx.needs_input_grad[first + _SINK]
    dq, dk, dv, dbias, dsink = torch.ops.regard.attention_backward(
        dout, dlse, q, k, v, out, lse, cu_q, cu_kv, *tensors, *ctx.scalars, want_dbias, want_dsink)
    nothing[:3] = dq, dk, dv
    if want_dbias:
        nothing[first + _BIAS] = dbias.to(bias.dtype)
    if want_dsink:
        nothing[first + _SINK] = dsink.to(sink.dtype)
    return tuple(nothing)


def _check_differentiable(ctx: Any, needs: tuple[bool, ...]) -> None:
    for name, wanted in zip(NAMES, needs):
        if wanted and name in _NO_GRADIENT:
            raise error(name, "a tensor that requires grad", f"one that does not: attention has no gradient for {name}")
    if ctx.paged:
        raise error("block_table", "a gradient through paged keys", "inference only; packed or dense k and v to train")


def _setup_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    del inputs, output
    ctx.set_materialize_grads(False)


def _refuse_double_backward(ctx: Any, *grads: Tensor | None) -> None:
    del ctx, grads
    raise error("create_graph", "a second backward through regard's attention",
                "first derivatives only; for second ones use torch's math backend, "
                "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), with torch's own scaled_dot_product_attention")


class _Node(torch.autograd.function._SingleLevelFunction):
    """An autograd node around the kernels below the dispatcher's Autograd key. The last two arguments are the op's
    Setup, and the keys to go on with."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        *inputs, rule, keys = args
        with torch._C._AutoDispatchBelowAutograd():
            output = rule.op.redispatch(keys & torch._C._after_autograd_keyset, *inputs)
        rule.setup(ctx, tuple(inputs), output)
        ctx.rule = rule
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*ctx.rule.backward(ctx, *grads), None, None)


def _record(*args: Any) -> Any:
    """A node at the level at hand: torch.func's transforms have done their part before the Autograd key, so that
    inside them the op differentiates as torch's own ops do."""
    apply: Callable[..., Any] = getattr(_Node, "apply")
    if not inside_func():
        return apply(*args)
    with enable_single_level_autograd_function():
        return apply(*args)


def _refuse_tangents(name: str, args: tuple[Any, ...]) -> None:
    if any(isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in args):
        raise error(name, "an input with a tangent", "reverse mode only: attention has no forward-mode derivative here")


class _Eager(torch.autograd.Function):
    """The node of eager calls that nothing of torch watches: the same gradients without the dispatcher in between."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sink: Tensor | None,
                call: dict[str, Any], packed: dict[str, Any] | None, out_dtype: torch.dtype | None) -> Any:
        out, lse = _call.forward(q.detach(), k.detach(), v.detach(),
                                 {name: t.detach() if isinstance(t, Tensor) else t for name, t in call.items()},
                                 out_dtype, packed)
        tensors = {name: t for name, t in call.items() if isinstance(t, Tensor)}
        cu_q, cu_kv = (packed["cu_seqlens_q"], packed["cu_seqlens_kv"]) if packed else (None, None)
        ctx.save_for_backward(q, k, v, out, lse, cu_q, cu_kv, *tensors.values())
        ctx.names = tuple(tensors)
        ctx.call = {name: value for name, value in call.items() if name not in tensors}
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        dout, dlse = grads
        if dout is None and dlse is None:
            return (None,) * 8
        q, k, v, out, lse, cu_q, cu_kv, *tensors = ctx.saved_tensors
        call = {**ctx.call, **dict(zip(ctx.names, tensors))}
        wanted = ctx.needs_input_grad[3], ctx.needs_input_grad[4]
        if (not torch.is_grad_enabled() and is_direct(q, k, v, {"dout": dout, "dlse": dlse, **call})
                and not any(t is not None and is_batch_of_gradients(t) for t in grads)):
            call = {name: t.detach() if isinstance(t, Tensor) else t for name, t in call.items()}
            got = _call.backward(dout, dlse, q.detach(), k.detach(), v.detach(), out.detach(), lse.detach(), cu_q,
                                 cu_kv, call, *wanted)
        else:
            got = torch.ops.regard.attention_backward(dout, dlse, q, k, v, out, lse, cu_q, cu_kv, *pack(**call),
                                                      *wanted)
        dq, dk, dv, dbias, dsink = got
        return (dq, dk, dv, dbias.to(call["bias"].dtype) if wanted[0] else None,
                dsink.to(call["sink"].dtype) if wanted[1] else None, None, None, None)


def record(q: Tensor, k: Tensor, v: Tensor, call: dict[str, Any], packed: dict[str, Any] | None,
           out_dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """(out, lse) of a call as `_call.forward` takes it, differentiable; for `is_recordable` calls without pages."""
    apply: Callable[..., tuple[Tensor, Tensor]] = getattr(_Eager, "apply")
    return apply(q, k, v, call.get("bias"), call.get("sink"), call, packed, out_dtype)


class _Rule(NamedTuple):
    op: torch._ops.OpOverload
    setup: Callable[..., None]
    backward: Callable[..., Any]


def _register(name: str, backward: Callable[..., Any], setup: Callable[..., None]) -> None:
    rule = _Rule(getattr(torch.ops.regard, name).default, setup, backward)

    def autograd_kernel(keys: torch._C.DispatchKeySet, *args: Any) -> Any:
        if forward_ad._current_level >= 0:
            _refuse_tangents(name, args)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return _record(*args, rule, keys)
        with torch._C._AutoDispatchBelowAutograd():
            return rule.op.redispatch(keys & torch._C._after_autograd_keyset, *args)

    _ops.lib.impl(name, autograd_kernel, "Autograd", with_keyset=True)


_register("attention_forward", _backward, _setup_dense)
_register("varlen_forward", _backward, _setup_packed)
_register("attention_backward", _refuse_double_backward, _setup_nothing)
