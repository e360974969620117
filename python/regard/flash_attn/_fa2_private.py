"""The functions below flash-attn 2's autograd, which ring-attention packages call by name: states in, states out.

softmax_lse is in flash-attn's dialect both ways. `_wrapped_*` are the same plain functions: an operator namespace is
left to a real flash-attn that may be imported later.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn import _call, _dialect, _fa2

States = tuple[Tensor, Tensor, Tensor, Tensor]


def _flash_attn_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Tensor | None,
    return_softmax: bool,
) -> States:
    """(out, softmax_lse (B, Hq, Sq), S_dmask, rng_state int64 (2)) of dense q, k, v. Not differentiable."""
    call = _fa2.dense(
        q, k, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes
    )
    return _states(q, k, v, call, return_softmax)


def _flash_attn_varlen_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    return_softmax: bool = False,
    block_table: Tensor | None = None,
    leftpad_k: Tensor | None = None,
    seqused_k: Tensor | None = None,
    zero_tensors: bool = False,
    num_splits: int = 0,
) -> States:
    """(out, softmax_lse (Hq, Tq), S_dmask, rng_state) of packed q, k, v. zero_tensors is moot: unowned rows are 0."""
    call = _fa2.varlen(
        q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
        window_size_left, window_size_right, softcap, alibi_slopes, block_table=block_table, leftpad_k=leftpad_k,
        seqused_k=seqused_k,
    )
    return _states(q, k, v, call, return_softmax)


def _flash_attn_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Tensor | None,
    deterministic: bool,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Writes dq, dk, dv (those that are not None); returns softmax_d = rowsum(dout * out), f32, lengths padded to 128.

    out and softmax_lse may be those of a softmax over more keys than k (a ring's merged state). With dropout, rng_state
    is the forward pass's; None is an error, since its mask could not be repeated.
    """
    if dropout_p and rng_state is None:
        raise Error("rng_state", "None", "the rng_state of the forward pass, since dropout_p > 0")
    call = _fa2.dense(
        q, k, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes, rng_state
    )
    return _gradients(dout, q, k, v, out, softmax_lse, dq, dk, dv, call)


def _flash_attn_varlen_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Tensor | None,
    deterministic: bool,
    rng_state: Tensor | None = None,
    zero_tensors: bool = False,
) -> Tensor:
    """As _flash_attn_backward, for packed q, k, v; softmax_d is (Hq, Tq + 128 B)."""
    if dropout_p and rng_state is None:
        raise Error("rng_state", "None", "the rng_state of the forward pass, since dropout_p > 0")
    call = _fa2.varlen(
        q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal,
        window_size_left, window_size_right, softcap, alibi_slopes, rng_state,
    )
    return _gradients(dout, q, k, v, out, softmax_lse, dq, dk, dv, call)


_wrapped_flash_attn_forward = _flash_attn_forward
_wrapped_flash_attn_varlen_forward = _flash_attn_varlen_forward
_wrapped_flash_attn_backward = _flash_attn_backward
_wrapped_flash_attn_varlen_backward = _flash_attn_varlen_backward


def _get_block_size_n(device: Any, head_dim: int, is_dropout: bool, is_causal: bool) -> int:
    """Keys that a flash-attn kernel takes at a time on its first GPU generation; on a CPU a number for tests to use."""
    if head_dim <= 32:
        return 128
    if head_dim <= 64:
        return 64 if is_dropout else 128
    if 96 < head_dim <= 128 and is_dropout or 128 < head_dim <= 160:
        return 32
    return 64


def _states(q: Tensor, k: Tensor, v: Tensor, call: _fa2.Fa2Call, return_softmax: bool) -> States:
    q, k, v = q.detach(), k.detach(), v.detach()
    out, lse, probabilities = _fa2.run(q, k, v, call, return_softmax)
    rng_state = torch.zeros(2, dtype=torch.int64, device="cpu") if call.rng_state is None else call.rng_state
    return out, call.lse_out(lse, q, k), probabilities, rng_state


@torch.no_grad()
def _gradients(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor, dq: Tensor | None,
    dk: Tensor | None, dv: Tensor | None, call: _fa2.Fa2Call,
) -> Tensor:
    targets = [torch.empty_like(x) if d is None else d for d, x in ((dq, q), (dk, k), (dv, v))]
    lse = call.lse_in(softmax_lse, q, k)
    q, k, v = (_dialect.maybe_contiguous(x) for x in (q, k, v))
    _call.backward(dout, q, k, v, out, lse, call.call, dq=targets[0], dk=targets[1], dv=targets[2])
    return _dialect.softmax_d(dout, out, call.call.cu_seqlens_q)
