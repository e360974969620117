"""The one place from which torch tensors reach the library: forward, cache and backward, on plain tensors of one device.

Results are allocated here, in the stride order of what they belong to: out in q's, a gradient in its tensor's. So a
(B, H, S, D) caller that passes transposed views gets views of the same memory order back, without a copy.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import regard
from regard import _core

from . import _backends, _log
from ._options import rows

_ISA_PARTS = 2  # "cpu.avx512": backend and instruction set of a kernel's name


def out_dtype_of(q: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    """The type of out: the one asked for, bf16 where q is fp8, else q's."""
    if out_dtype is not None:
        return out_dtype
    return torch.bfloat16 if q.dtype.itemsize == 1 else q.dtype


def empty_in_order_of(t: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised, dense, of `shape`, its dims in memory in the order of `t`'s; the last dim stays contiguous."""
    strides = t.stride()
    order = sorted(range(t.dim() - 1), key=lambda d: (strides[d] == 0, strides[d]), reverse=True)
    return torch.empty_permuted(tuple(shape), (*order, t.dim() - 1), dtype=dtype, device=t.device)


def _spread_offset(call: dict[str, Any], q: Tensor, cu_seqlens_q: Tensor | None) -> None:
    """One q_offset for all sequences becomes one for each."""
    offset = call.get("q_offset")
    if isinstance(offset, int):
        batch = q.shape[0] if cu_seqlens_q is None else len(cu_seqlens_q) - 1
        if q.is_cuda:  # made in the order of the current stream, so that it is not for another call
            call["q_offset"] = torch.full((batch,), offset, dtype=torch.int32, device=q.device)
        else:
            call["q_offset"] = _offsets(batch, offset)


@functools.lru_cache(maxsize=64)
def _offsets(batch: int, offset: int) -> Tensor:
    return torch.full((batch,), offset, dtype=torch.int32, device="cpu")


def new_dbias(bias: Tensor) -> Tensor:
    """The gradient of a bias: its shape and type, dense."""
    return torch.empty(bias.shape, dtype=bias.dtype, device=bias.device)


def new_out(q: Tensor, v: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    """Out of a call: q's shape with v's head dim."""
    dtype = out_dtype_of(q, out_dtype)
    if q.shape[-1] == v.shape[-1] and q.is_contiguous():
        return torch.empty_like(q, dtype=dtype)
    return empty_in_order_of(q, (*q.shape[:-1], v.shape[-1]), dtype)


def _out_in_order(q: Tensor, v: Tensor, out_dtype: torch.dtype | None, call: dict[str, Any]) -> Tensor | None:
    """`new_out`; None where the library makes the same by itself, which is quicker."""
    if not q.is_contiguous():
        return new_out(q, v, out_dtype)
    if out_dtype is not None:
        call["out_dtype"] = out_dtype
    return None


def forward(q: Tensor, k: Tensor, v: Tensor, call: dict[str, Any], out_dtype: torch.dtype | None,
            packed: dict[str, Any] | None = None, out: Tensor | None = None,
            want_lse: bool = True) -> tuple[Tensor, Tensor | None]:
    """Dense attention, or with `packed` (its cu_seqlens, tables and layout) the varlen one: (out, lse or None)."""
    if out is None:
        out = _out_in_order(q, v, out_dtype, call)
    q, k, v = rows(q), rows(k), rows(v)
    function: Callable[..., Any] = regard.attention
    if packed is not None:
        function = regard.varlen_attention
        call.update((name, value) for name, value in packed.items() if value is not None)
    _spread_offset(call, q, call.get("cu_seqlens_q"))
    result = _run(function, q, k, v, out=out, return_lse=want_lse, **call)
    return result if want_lse else (result, None)


def forward_heads_first(q: Tensor, k: Tensor, v: Tensor, call: dict[str, Any]) -> Tensor:
    """Out of a dense call on (B, H, S, D) tensors, for calls that are not logged and name no kernel."""
    out = None if q.is_contiguous() else new_out(q, v, None)
    _spread_offset(call, q, None)
    result: Tensor = _core.attention_heads_first(rows(q), rows(k), rows(v), out=out, **call)
    return result


def with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, cache: dict[str, Any], call: dict[str, Any],
                 out_dtype: torch.dtype | None, out: Tensor | None = None,
                 want_lse: bool = True) -> tuple[Tensor, Tensor | None]:
    """Append where `cache` has k_new, then attend: (out, lse or None). Writes k_cache and v_cache in place."""
    if out is None:
        out = _out_in_order(q, v_cache, out_dtype, call)
    q = rows(q)
    for name, value in cache.items():
        if value is not None:
            call[name] = rows(value) if isinstance(value, Tensor) else value
    _spread_offset(call, q, call.get("cu_seqlens_q"))
    result = _run(regard.with_kvcache, q, k_cache, v_cache, out=out, return_lse=want_lse, **call)
    return result if want_lse else (result, None)


def backward(dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
             cu_seqlens_q: Tensor | None, cu_seqlens_kv: Tensor | None, call: dict[str, Any], want_dbias: bool,
             want_dsink: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, bias and sink; the last two of shape (0,) where they are not wanted."""
    _spread_offset(call, q, cu_seqlens_q)
    if "kernel" in call:
        call["kernel"] = backward_kernels(call["kernel"])
    if dout is None:
        dout = torch.zeros_like(out)
    elif dout.dtype != q.dtype:
        dout = dout.float()
    dq, dk, dv = (empty_in_order_of(t, t.shape, t.dtype) for t in (q, k, v))
    q, k, v = rows(q), rows(k), rows(v)
    dbias = new_dbias(call["bias"]) if want_dbias else False
    got = regard.attention_backward(rows(dout), q, k, v, out, lse, dlse=None if dlse is None else rows(dlse),
                                    cu_seqlens_q=cu_seqlens_q, cu_seqlens_kv=cu_seqlens_kv, dq=dq, dk=dk, dv=dv,
                                    dbias=dbias, dsink=want_dsink, **call)
    if _log.enabled:
        _log_backward(q, k, v, cu_seqlens_q, cu_seqlens_kv, call)
    return dq, dk, dv, _or_empty(got.dbias, q), _or_empty(got.dsink, q)


def _run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The call itself; where no kernel that it allows can do it, the error names each by torch's names too."""
    try:
        result = function(*args, **kwargs)
    except regard.Error as refusal:
        if refusal.field == "kernel" and kwargs.get("kernel"):
            raise _backends.no_backend(function, args, kwargs) from refusal
        raise
    if _log.enabled:
        _log.forward(function, *args, **kwargs)
    return result


def _log_backward(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor | None, cu_seqlens_kv: Tensor | None,
                  call: dict[str, Any]) -> None:
    if cu_seqlens_q is None:
        _log.backward(regard.attention, q, k, v, **call)
    else:
        _log.backward(regard.varlen_attention, q, k, v, cu_seqlens_q, cu_seqlens_kv, **call)


def backward_kernels(patterns: Sequence[str]) -> list[str]:
    """The kernels of a backward whose forward was asked for `patterns`: the same instruction sets, any phase. On a GPU any:
    gradients are computed on CUDA cores, whatever computed the forward."""
    return list(dict.fromkeys("cuda" if p.startswith("cuda.") else ".".join(p.split(".")[:_ISA_PARTS]) for p in patterns))


def _or_empty(t: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0, dtype=torch.float32) if t is None else t
