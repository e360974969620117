"""The custom ops of torch.ops.regard: schemas, kernels for CPU and CUDA, fake kernels. Gradients are in _autograd, vmap
in _vmap.

    attention_forward(q, k, v, options, out_dtype) -> (out, lse)
    varlen_forward(q, k, v, packed, options, out_dtype) -> (out, lse)
    attention_backward(dout, dlse, q, k, v, out, lse, cu_seqlens_q, cu_seqlens_kv, options, want_dbias, want_dsink)
        -> (dq, dk, dv, dbias, dsink)
    with_kvcache(q, k_cache, v_cache, cache, options, out_dtype) -> (out, lse); mutates k_cache and v_cache

No op has default arguments: the functions in _api fill everything in, so that positions are fixed.
"""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _call
from ._options import COUNT, NAMES, SCHEMA, to_call

# What makes a call varlen, and what makes it use a cache.
PACKED: tuple[tuple[str, str], ...] = (
    ("cu_seqlens_q", "Tensor?"), ("cu_seqlens_kv", "Tensor?"), ("block_table", "Tensor?"), ("seqlens_kv", "Tensor?"),
    ("kv_indptr", "Tensor?"), ("kv_indices", "Tensor?"), ("kv_last_page_len", "Tensor?"), ("kv_layout", "str"),
)
CACHE: tuple[tuple[str, str], ...] = (
    ("k_new", "Tensor?"), ("v_new", "Tensor?"), ("cache_seqlens", "Tensor"), ("cache_batch_idx", "Tensor?"),
    ("block_table", "Tensor?"), ("kv_indptr", "Tensor?"), ("kv_indices", "Tensor?"), ("kv_last_page_len", "Tensor?"),
    ("kv_layout", "str"), ("cu_seqlens_q", "Tensor?"), ("cu_seqlens_new", "Tensor?"), ("rotary_cos", "Tensor?"),
    ("rotary_sin", "Tensor?"), ("rotary", "str"), ("rotary_seqlens", "Tensor?"),
)
PACKED_NAMES = tuple(name for name, _ in PACKED)
CACHE_NAMES = tuple(name for name, _ in CACHE)


def _args(pairs: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{kind} {name}" for name, kind in pairs)


_TAIL = f"{SCHEMA}, ScalarType? out_dtype"
SCHEMAS: dict[str, str] = {
    "attention_forward": f"(Tensor q, Tensor k, Tensor v, {_TAIL}) -> (Tensor, Tensor)",
    "varlen_forward": f"(Tensor q, Tensor k, Tensor v, {_args(PACKED)}, {_TAIL}) -> (Tensor, Tensor)",
    "attention_backward": "(Tensor? dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
                          f"Tensor? cu_seqlens_q, Tensor? cu_seqlens_kv, {SCHEMA}, bool want_dbias, bool want_dsink) "
                          "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "with_kvcache": f"(Tensor q, Tensor(a!) k_cache, Tensor(b!) v_cache, {_args(CACHE)}, {_TAIL}) -> (Tensor, Tensor)",
}

lib = torch.library.Library("regard", "FRAGMENT")


def _lse_shape(q: Tensor) -> tuple[Any, ...]:
    return (q.shape[0], q.shape[2], q.shape[1]) if q.dim() == 4 else (q.shape[1], q.shape[0])


def _new_results(q: Tensor, v: Tensor, out_dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    return _call.new_out(q, v, out_dtype), q.new_empty(_lse_shape(q), dtype=torch.float32)


def _attention_forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    return _call.forward(q, k, v, to_call(rest[:COUNT]), rest[COUNT])


def _attention_forward_fake(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _new_results(q, v, rest[COUNT])


def _varlen_forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    packed, options = rest[:len(PACKED)], rest[len(PACKED):]
    return _call.forward(q, k, v, to_call(options[:COUNT]), options[COUNT], dict(zip(PACKED_NAMES, packed)))


def _varlen_forward_fake(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _new_results(q, v, rest[-1])


def _attention_backward(dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor,
                        lse: Tensor, cu_seqlens_q: Tensor | None, cu_seqlens_kv: Tensor | None,
                        *rest: Any) -> tuple[Tensor, ...]:
    return _call.backward(dout, dlse, q, k, v, out, lse, cu_seqlens_q, cu_seqlens_kv, to_call(rest[:COUNT]),
                          *rest[COUNT:])


def _attention_backward_fake(dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor,
                             lse: Tensor, cu_seqlens_q: Tensor | None, cu_seqlens_kv: Tensor | None,
                             *rest: Any) -> tuple[Tensor, ...]:
    options = dict(zip(NAMES, rest))
    want_dbias, want_dsink = rest[COUNT:]
    none = q.new_empty(0, dtype=torch.float32)
    bias, sink = options["bias"], options["sink"]
    return (*(_call.empty_in_order_of(t, t.shape, t.dtype) for t in (q, k, v)),
            _call.new_dbias(bias) if want_dbias else none,
            sink.new_empty(sink.shape, dtype=torch.float32) if want_dsink else torch.empty_like(none))


def _with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    cache, options = rest[:len(CACHE)], rest[len(CACHE):]
    return _call.with_kvcache(q, k_cache, v_cache, dict(zip(CACHE_NAMES, cache)), to_call(options[:COUNT]),
                              options[COUNT])


def _with_kvcache_fake(q: Tensor, k_cache: Tensor, v_cache: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _new_results(q, v_cache, rest[-1])


def _define(name: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    lib.define(name + SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    for key in ("CPU", "CUDA"):
        lib.impl(name, kernel, key)
    torch.library.register_fake(f"regard::{name}", fake, lib=lib)


_define("attention_forward", _attention_forward, _attention_forward_fake)
_define("varlen_forward", _varlen_forward, _varlen_forward_fake)
_define("attention_backward", _attention_backward, _attention_backward_fake)
_define("with_kvcache", _with_kvcache, _with_kvcache_fake)
