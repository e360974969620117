"""The autograd functions of flash-attn 2 by their own names: FlashAttnFunc and its packed and varlen siblings.

.apply takes the positional arguments of the public function, then is_grad_enabled. They save regard's lse and return
flash-attn's, so +inf rows and the ALiBi term never enter a gradient. The gradient of the returned lse is honoured
(flash-attn ignores it). Packed gradients are written in place into one tensor, without a copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.flash_attn import _call, _dialect, _fa2


Tensors = tuple[Any, ...]


def _forward(ctx: Any, inputs: Tensors, q: Tensor, k: Tensor, v: Tensor, call: _fa2.Fa2Call, return_softmax: bool,
             is_grad_enabled: bool) -> Any:
    out, lse, probabilities = _fa2.run(q, k, v, call, return_softmax)
    if is_grad_enabled:
        _call.save(ctx, call.call, *inputs, out, lse)
    if not return_softmax:
        return out
    ctx.mark_non_differentiable(probabilities)
    return out, call.lse_out(lse, q, k), probabilities


def _backward(ctx: Any, grads: Tensors, inputs: Tensors, states: Tensors, targets: Tensors) -> None:
    """inputs (q, k, v), states (out, lse), targets (dq, dk, dv) to be written."""
    q, k, v = (_dialect.maybe_contiguous(x) for x in inputs)
    _call.gradients(ctx, grads[0], grads[1] if len(grads) > 1 else None, q, k, v, *states, *targets)


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in tensors)


class FlashAttnFunc(_call.AutogradFunction):
    """q (B, Sq, Hq, D), k and v (B, Skv, Hkv, D)."""

    @staticmethod
    def forward(
        ctx: Any, q: Any, k: Any, v: Any, dropout_p: Any, softmax_scale: Any, causal: Any, window_size: Any,
        softcap: Any, alibi_slopes: Any, deterministic: Any, return_softmax: Any, is_grad_enabled: Any = True,
    ) -> Any:
        left, right = _dialect.window_pair(window_size)
        call = _fa2.dense(q, k, dropout_p, softmax_scale, causal, left, right, softcap, alibi_slopes)
        return _forward(ctx, (q, k, v), q, k, v, call, return_softmax, is_grad_enabled)

    @staticmethod
    @_call.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = _like(q, k, v)
        _backward(ctx, grads, (q, k, v), (out, lse), (dq, dk, dv))
        return (dq, dk, dv, *[None] * 9)


class FlashAttnQKVPackedFunc(_call.AutogradFunction):
    """qkv (B, S, 3, H, D)."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Any, dropout_p: Any, softmax_scale: Any, causal: Any, window_size: Any, softcap: Any,
        alibi_slopes: Any, deterministic: Any, return_softmax: Any, is_grad_enabled: Any = True,
    ) -> Any:
        q, k, v = qkv.detach().unbind(2)
        left, right = _dialect.window_pair(window_size)
        call = _fa2.dense(q, k, dropout_p, softmax_scale, causal, left, right, softcap, alibi_slopes)
        return _forward(ctx, (qkv,), q, k, v, call, return_softmax, is_grad_enabled)

    @staticmethod
    @_call.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        qkv, out, lse = ctx.saved_tensors
        (dqkv,) = _like(qkv)
        _backward(ctx, grads, qkv.unbind(2), (out, lse), dqkv.unbind(2))
        return (dqkv, *[None] * 9)


class FlashAttnKVPackedFunc(_call.AutogradFunction):
    """q (B, Sq, Hq, D), kv (B, Skv, 2, Hkv, D)."""

    @staticmethod
    def forward(
        ctx: Any, q: Any, kv: Any, dropout_p: Any, softmax_scale: Any, causal: Any, window_size: Any, softcap: Any,
        alibi_slopes: Any, deterministic: Any, return_softmax: Any, is_grad_enabled: Any = True,
    ) -> Any:
        k, v = kv.detach().unbind(2)
        left, right = _dialect.window_pair(window_size)
        call = _fa2.dense(q, k, dropout_p, softmax_scale, causal, left, right, softcap, alibi_slopes)
        return _forward(ctx, (q, kv), q, k, v, call, return_softmax, is_grad_enabled)

    @staticmethod
    @_call.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q, kv, out, lse = ctx.saved_tensors
        dq, dkv = _like(q, kv)
        _backward(ctx, grads, (q, *kv.unbind(2)), (out, lse), (dq, *dkv.unbind(2)))
        return (dq, dkv, *[None] * 9)


class FlashAttnVarlenFunc(_call.AutogradFunction):
    """q (Tq, Hq, D), k and v (Tk, Hkv, D), or pages (n, page_size, Hkv, D) with block_table."""

    @staticmethod
    def forward(
        ctx: Any, q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: Any, max_seqlen_k: Any,
        dropout_p: Any, softmax_scale: Any, causal: Any, window_size: Any, softcap: Any, alibi_slopes: Any,
        deterministic: Any, return_softmax: Any, block_table: Any, is_grad_enabled: Any = True,
    ) -> Any:
        left, right = _dialect.window_pair(window_size)
        call = _fa2.varlen(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
                           causal, left, right, softcap, alibi_slopes, block_table=block_table)
        return _forward(ctx, (q, k, v), q, k, v, call, return_softmax, is_grad_enabled)

    @staticmethod
    @_call.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = _like(q, k, v)
        _backward(ctx, grads, (q, k, v), (out, lse), (dq, dk, dv))
        return (dq, dk, dv, *[None] * 14)


class FlashAttnVarlenQKVPackedFunc(_call.AutogradFunction):
    """qkv (T, 3, H, D)."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Any, cu_seqlens: Any, max_seqlen: Any, dropout_p: Any, softmax_scale: Any, causal: Any,
        window_size: Any, softcap: Any, alibi_slopes: Any, deterministic: Any, return_softmax: Any,
        is_grad_enabled: Any = True,
    ) -> Any:
        q, k, v = qkv.detach().unbind(1)
        left, right = _dialect.window_pair(window_size)
        call = _fa2.varlen(q, k, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p, softmax_scale, causal,
                           left, right, softcap, alibi_slopes)
        return _forward(ctx, (qkv,), q, k, v, call, return_softmax, is_grad_enabled)

    @staticmethod
    @_call.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        qkv, out, lse = ctx.saved_tensors
        (dqkv,) = _like(qkv)
        _backward(ctx, grads, qkv.unbind(1), (out, lse), dqkv.unbind(1))
        return (dqkv, *[None] * 11)


class FlashAttnVarlenKVPackedFunc(_call.AutogradFunction):
    """q (Tq, Hq, D), kv (Tk, 2, Hkv, D)."""

    @staticmethod
    def forward(
        ctx: Any, q: Any, kv: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: Any, max_seqlen_k: Any,
        dropout_p: Any, softmax_scale: Any, causal: Any, window_size: Any, softcap: Any, alibi_slopes: Any,
        deterministic: Any, return_softmax: Any, is_grad_enabled: Any = True,
    ) -> Any:
        k, v = kv.detach().unbind(1)
        left, right = _dialect.window_pair(window_size)
        call = _fa2.varlen(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale,
                           causal, left, right, softcap, alibi_slopes)
        return _forward(ctx, (q, kv), q, k, v, call, return_softmax, is_grad_enabled)

    @staticmethod
    @_call.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        q, kv, out, lse = ctx.saved_tensors
        dq, dkv = _like(q, kv)
        _backward(ctx, grads, (q, *kv.unbind(1)), (out, lse), (dq, *dkv.unbind(1)))
        return (dq, dkv, *[None] * 13)
