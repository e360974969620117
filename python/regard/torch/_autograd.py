"""Gradients of the ops: out and lse for q, k, v, bias and sink, by regard::attention_backward.

The forward's dropout mask is not stored: `rng` is, and the backward replays the mask from it. A backward through the
backward is refused, as is a gradient that attention has no formula for (paged or appended keys, ALiBi slopes, fp8).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._error import error
from ._options import COUNT, NAMES, TENSORS

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
    del ctx, inputs, output


def _refuse_double_backward(ctx: Any, *grads: Tensor | None) -> None:
    del ctx, grads
    raise error("create_graph", "a second backward through regard's attention",
                "first derivatives only; for second ones use torch's math backend, "
                "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), with torch's own scaled_dot_product_attention")


def _register(name: str, backward: Callable[..., Any], setup: Callable[..., None]) -> None:
    torch.library.register_autograd(f"regard::{name}", backward, setup_context=setup, lib=_ops.lib)


_register("attention_forward", _backward, _setup_dense)
_register("varlen_forward", _backward, _setup_packed)
_register("attention_backward", _refuse_double_backward, _setup_nothing)
