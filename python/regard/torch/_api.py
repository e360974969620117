"""regard.torch.attention, varlen_attention and with_kvcache: the calls of `regard`, for autograd and torch.compile.

Shapes: B batch, Sq/Skv lengths, Hq/Hkv heads, D head dim of q and k, Dv of v. Errors are `regard.Error`.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from . import _autograd, _call, _ops
from ._error import error
from ._mode import autocast_type, cast, is_direct, is_recordable, plain
from ._options import Options, pack, plain_call

if TYPE_CHECKING:
    from typing_extensions import Unpack

_Result = Tensor | tuple[Tensor, Tensor]


@overload
def attention(q: Tensor, k: Tensor, v: Tensor, *, out: Tensor | None = ..., out_dtype: torch.dtype | None = ...,
              return_lse: Literal[False] = ..., **options: Unpack[Options]) -> Tensor: ...


@overload
def attention(q: Tensor, k: Tensor, v: Tensor, *, out: Tensor | None = ..., out_dtype: torch.dtype | None = ...,
              return_lse: Literal[True], **options: Unpack[Options]) -> tuple[Tensor, Tensor]: ...


@overload
def attention(q: Tensor, k: Tensor, v: Tensor, *, out: Tensor | None = ..., out_dtype: torch.dtype | None = ...,
              return_lse: bool, **options: Unpack[Options]) -> _Result: ...


def attention(q: Tensor, k: Tensor, v: Tensor, *, out: Tensor | None = None, out_dtype: torch.dtype | None = None,
              return_lse: bool = False, **options: Unpack[Options]) -> _Result:
    """Exact attention, differentiable in q, k, v, bias and sink, through out and lse.

    q (B, Sq, Hq, D); k (B, Skv, Hkv, D); v (B, Skv, Hkv, Dv), f32, f16 or bf16, on the CPU or a CUDA device. `options`
    are those of `regard.attention` (scale, causal, window, chunk, softcap, alibi_slopes, bias, mask, sink, q_offset, dropout, ...),
    except that `seed` and `offset`, where not given, are drawn from torch's default generator: `torch.manual_seed`
    repeats a call, and two calls differ. Under autocast q, k and v are cast first.

    Returns out (B, Sq, Hq, Dv), in q's type or `out_dtype` and in q's stride order, or (out, lse) with lse f32
    (B, Hq, Sq), natural logarithm. With `out`, the result is written there and no gradient is recorded.
    Raises regard.Error naming field, value and what is expected.
    """
    result: _Result = _attend(q, k, v, None, options, out, out_dtype, return_lse)
    return result


def varlen_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor | None = None,
                     cu_seqlens_kv: Tensor | None = None, *, block_table: Tensor | None = None,
                     seqlens_kv: Tensor | None = None, kv_indptr: Tensor | None = None,
                     kv_indices: Tensor | None = None, kv_last_page_len: Tensor | None = None, kv_layout: str = "NHD",
                     out: Tensor | None = None, out_dtype: torch.dtype | None = None, return_lse: bool = False,
                     **options: Unpack[Options]) -> Any:
    """Attention over packed sequences, or over pages, differentiable where k and v are packed.

    q (Tq, Hq, D); k (Tkv, Hkv, D); v (Tkv, Hkv, Dv); cu_seqlens_q and cu_seqlens_kv int32 (B + 1). With block_table
    int32 (B, max_pages) and seqlens_kv (B), or kv_indptr, kv_indices and kv_last_page_len, k and v are page pools:
    (pages, page_size, Hkv, D) "NHD", (pages, Hkv, page_size, D) "HND". `options` as for `attention`.

    Returns out (Tq, Hq, Dv), or (out, lse) with lse f32 (Hq, Tq). Raises regard.Error.
    """
    packed = {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_kv": cu_seqlens_kv, "block_table": block_table,
              "seqlens_kv": seqlens_kv, "kv_indptr": kv_indptr, "kv_indices": kv_indices,
              "kv_last_page_len": kv_last_page_len, "kv_layout": kv_layout}
    return _attend(q, k, v, packed, options, out, out_dtype, return_lse)


def with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k_new: Tensor | None = None,
                 v_new: Tensor | None = None, *, cache_seqlens: Tensor, cache_batch_idx: Tensor | None = None,
                 block_table: Tensor | None = None, kv_indptr: Tensor | None = None, kv_indices: Tensor | None = None,
                 kv_last_page_len: Tensor | None = None, kv_layout: str = "NHD", cu_seqlens_q: Tensor | None = None,
                 cu_seqlens_new: Tensor | None = None, rotary_cos: Tensor | None = None,
                 rotary_sin: Tensor | None = None, rotary: str = "none", rotary_seqlens: Tensor | None = None,
                 out: Tensor | None = None, out_dtype: torch.dtype | None = None, return_lse: bool = False,
                 **options: Unpack[Options]) -> Any:
    """Appends k_new and v_new to the cache in place, then attends: `regard.with_kvcache` for torch.compile.

    Not differentiable: inputs that require grad are taken as they are, and the result does not require grad. Under
    autocast q, k_new and v_new are cast to the cache's type. Shapes, returns and errors as `regard.with_kvcache`.
    """
    q, k_cache, v_cache = plain(q), plain(k_cache), plain(v_cache)
    k_new, v_new = None if k_new is None else plain(k_new), None if v_new is None else plain(v_new)
    if autocast_type(q) is not None:
        dtype = k_cache.dtype if k_cache.dtype.itemsize > 1 else None
        q, k_new, v_new = cast(q, dtype), *(None if t is None else cast(t, dtype) for t in (k_new, v_new))
    cache = (k_new, v_new, cache_seqlens, cache_batch_idx, block_table, kv_indptr, kv_indices, kv_last_page_len,
             kv_layout, cu_seqlens_q, cu_seqlens_new, rotary_cos, rotary_sin, rotary, rotary_seqlens)
    if is_direct(q, k_cache, v_cache, options):
        result, lse = _call.with_kvcache(q, k_cache, v_cache, dict(zip(_ops.CACHE_NAMES, cache)), plain_call(options),
                                         out_dtype, out, return_lse)
    else:
        _check_device(q)
        result, lse = torch.ops.regard.with_kvcache(q, k_cache, v_cache, *cache, *pack(**options), out_dtype)
        result = result if out is None else out.copy_(result)
    return (result, lse) if return_lse else result


def _attend(q: Tensor, k: Tensor, v: Tensor, packed: dict[str, Any] | None, options: Options,
            out: Tensor | None, out_dtype: torch.dtype | None, return_lse: bool) -> Any:
    autocast = autocast_type(q)
    if autocast is not None:
        q, k, v = (cast(t, autocast) for t in (q, k, v))
    if is_direct(q, k, v, options):
        result, lse = _call.forward(q, k, v, plain_call(options), out_dtype, packed, out, return_lse)
    elif out is None and not _has_pages(packed) and is_recordable(q, k, v, options, ("bias", "sink")):
        result, lse = _autograd.record(q, k, v, plain_call(options), packed, out_dtype)
    else:
        _check_device(q)
        if packed is None:
            result, lse = torch.ops.regard.attention_forward(q, k, v, *pack(**options), out_dtype)
        else:
            result, lse = torch.ops.regard.varlen_forward(q, k, v, *packed.values(), *pack(**options), out_dtype)
        if out is not None:
            result, lse = out.copy_(result.detach()), lse.detach()
    return (result, lse) if return_lse else result


def _has_pages(packed: dict[str, Any] | None) -> bool:
    return packed is not None and (packed["block_table"] is not None or packed["kv_indptr"] is not None)


def _check_device(q: Tensor) -> None:
    if q.device.type not in ("cpu", "cuda", "meta"):
        raise error("q.device", q.device, "cpu or cuda")
