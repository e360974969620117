"""The attention function of `attn_implementation="regard"`."""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import regard.torch as rt
from regard.torch._error import error
from regard.torch._options import Options

from ._mask import Mask, Shape

# What sparse attention hands to kernels of its own instead of a mask.
_SELECTIONS = ("indices", "block_indices")


def attention(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
              dropout: float = 0.0, scaling: float | None = None, is_causal: bool | None = None,
              softcap: float | None = None, s_aux: Tensor | None = None, position_bias: Tensor | None = None,
              cu_seq_lens_q: Tensor | None = None, cu_seq_lens_k: Tensor | None = None,
              max_length_q: int | None = None, max_length_k: int | None = None, sliding_window: int | None = None,
              **kwargs: Any) -> tuple[Tensor, None]:
    """Attention as transformers' models call it, differentiable and compilable.

    query (B, Hq, Sq, D); key (B, Hkv, Skv, D); value (B, Hkv, Skv, Dv), f32, f16 or bf16 on the CPU or a CUDA device, any
    strides.
    attention_mask: a `Mask`, a bool tensor (True attends) or one to be added, (B | 1, Hq | 1, Sq | 1, Skv | 1); None
    means causal from the top left where the module is causal and Sq > 1, else nothing. s_aux (Hq) are sinks,
    position_bias (B | 1, Hq | 1, Sq | 1, Skv | 1) is added. With cu_seq_lens_q and cu_seq_lens_k int32 (n + 1) and no
    mask, the rows of the batch are packed sequences, each ending together with its keys, and sliding_window holds;
    in all other calls the window is in the mask, and sliding_window and the rest of kwargs are not read.

    Returns (out, None), out (B, Sq, Hq, Dv) contiguous. A query that sees no key has out 0. Raises regard.Error.
    """
    if kwargs.get("output_attentions"):
        raise error("output_attentions", True, "False: probabilities are never stored; attn_implementation=\"eager\" "
                    "returns them")
    for name in _SELECTIONS:
        if kwargs.get(name) is not None:
            raise error(name, "keys selected by the model's indexer", "None: this model puts its selection into the "
                        "mask for attn_implementation=\"eager\" and \"sdpa\" only")
    options: Options = {}
    if scaling is not None:
        options["scale"] = scaling
    if softcap:
        options["softcap"] = softcap
    if s_aux is not None:
        options["sink"] = _of_types(s_aux, query.dtype)
    if dropout:
        options["dropout"] = dropout
    if attention_mask is None and cu_seq_lens_q is not None and cu_seq_lens_k is not None and position_bias is None:
        if _is_causal(module, is_causal):
            options["causal"] = True
            options["window"] = (None if sliding_window is None else sliding_window - 1, None)
        elif sliding_window is not None:
            options["window"] = (sliding_window, sliding_window)
        if query.is_cuda:  # where no call reads the lengths
            options["max_seqlen_q"], options["max_seqlen_kv"] = max_length_q, max_length_k
        return _packed(query, key, value, cu_seq_lens_q, cu_seq_lens_k, options), None
    if isinstance(attention_mask, Mask):
        starts = attention_mask.cu_seqlens if attention_mask.elements is None else None
        if starts is not None and position_bias is None and _fits(attention_mask, query, key):
            _add_shape(attention_mask.structure, options)
            return _packed(query, key, value, starts, starts, options), None
        attention_mask = _structure(attention_mask, query, key, options)
    elif attention_mask is None and query.shape[2] > 1 and _is_causal(module, is_causal):
        seq_q = query.shape[2]
        options["causal"] = True
        if key.shape[2] != seq_q:
            options["q_offset"] = 0
            key, value = key[:, :, :seq_q], value[:, :, :seq_q]
            position_bias = None if position_bias is None else position_bias[..., :seq_q]
    _add_mask(attention_mask, position_bias, query.dtype, options)
    if query.shape[0] != key.shape[0]:
        query, key, value = _same_batch(query, key, value)
    out = rt.attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), **options)
    return out.contiguous(), None


def _is_causal(module: torch.nn.Module, is_causal: bool | None) -> bool:
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def _of_types(t: Tensor, dtype: torch.dtype) -> Tensor:
    """`t` in a type that goes with q's: q's own, or f32."""
    return t if t.dtype in (dtype, torch.float32) else t.to(torch.float32)


def _fits(mask: Mask, query: Tensor, key: Tensor) -> bool:
    return mask.shape[0] == query.shape[0] and mask.shape[2] == query.shape[2] and mask.shape[3] == key.shape[2]


def _structure(mask: Mask, query: Tensor, key: Tensor, options: Options) -> Tensor | None:
    """Puts the structure of a mask into the options; returns what is left of it as a tensor."""
    batch = query.shape[0]
    if mask.elements is not None or mask.cu_seqlens is not None:
        return mask.dense()
    if mask.shape[3] != key.shape[2] or mask.shape[0] not in (1, batch):
        return mask.dense()
    if _add_shape(mask.structure, options):
        options["q_offset"] = mask.offset.expand(batch)
    if mask.start is not None:
        options["leftpad"] = mask.start.expand(batch)
    if mask.stop is not None:
        options["seqused_kv"] = mask.stop.expand(batch)
    return mask.key_mask


def _add_shape(shape: Shape, options: Options) -> bool:
    """Puts the part that all sequences share into the options; True where it depends on the queries' places."""
    causal, left, right, chunk = shape
    if causal:
        options["causal"] = True
    if left is not None or right is not None:
        options["window"] = (left, right)
    if chunk is not None:
        options["chunk"] = chunk
    return causal or left is not None or right is not None or chunk is not None


def _add_mask(mask: Tensor | None, position_bias: Tensor | None, dtype: torch.dtype, options: Options) -> None:
    bias = position_bias
    if mask is not None and mask.dtype == torch.bool:
        options["mask"] = mask
    elif mask is not None:
        bias = mask if bias is None else mask + bias
    if bias is not None:
        options["bias"] = _of_types(bias, dtype)


def _same_batch(*tensors: Tensor) -> tuple[Tensor, ...]:
    batch = max(t.shape[0] for t in tensors)
    for name, t in zip(("query", "key", "value"), tensors):
        if t.shape[0] not in (1, batch):
            raise error(f"{name}.shape[0]", t.shape[0], f"{batch}, or 1")
    return tuple(t.expand(batch, -1, -1, -1) for t in tensors)


def _packed(query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor, cu_seqlens_kv: Tensor,
            options: Options) -> Tensor:
    """Sequences packed into the rows of the batch, each attending to itself: (B, Sq, Hq, Dv)."""
    batch, heads, seq_q, _ = query.shape
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (query, key, value))
    starts = (t.to(torch.int32) for t in (cu_seqlens_q, cu_seqlens_kv))
    out: Tensor = rt.varlen_attention(q, k, v, *starts, **options)
    return out.reshape(batch, seq_q, heads, value.shape[-1])
