"""install(): torch.nn.functional.scaled_dot_product_attention itself computed by regard, and uninstall().

The attribute of torch.nn.functional is replaced. Whoever took the function out of the module earlier
(`from torch.nn.functional import scaled_dot_product_attention`), the native fast path of nn.MultiheadAttention in eval
mode, and C++ callers stay with torch.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import CausalBias

import regard

from . import _log
from ._error import error
from ._mode import autocast_type
from ._sdpa import scaled_dot_product_attention

_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_HEAD_DIM_LIMIT = 512
_PLAIN = (Tensor, torch.nn.Parameter)
_overrideable_enabled: Callable[[], bool] = getattr(torch._C, "_get_overrideable_sdp_enabled", lambda: False)

_torchs_own: Any = None  # torch's function while ours stands in its place


def install() -> None:
    """Routes F.scaled_dot_product_attention to regard; a second call changes nothing. `uninstall` undoes it.

    A call goes on to torch's own function where regard cannot stand in: tensors on a device that regard has no
    kernels for, or on several, types other than f32, f16 and bf16, head dims above 512, nested tensors and tensor
    subclasses, and inside torch's own `torch.nn.attention.sdpa_kernel` contexts that enable neither FLASH_ATTENTION nor
    OVERRIDEABLE. `log_dispatch` shows which way each call went, and why.
    """
    global _torchs_own
    if _torchs_own is None:
        _torchs_own = F.scaled_dot_product_attention
        setattr(F, "scaled_dot_product_attention", routed)


def uninstall() -> None:
    """Puts torch's own function back. Raises regard.Error if another library has replaced ours since."""
    global _torchs_own
    if _torchs_own is None:
        return
    if F.scaled_dot_product_attention is not routed:
        raise error("torch.nn.functional.scaled_dot_product_attention", F.scaled_dot_product_attention,
                    "the function that regard.torch.install put there; undo the later replacement first")
    setattr(F, "scaled_dot_product_attention", _torchs_own)
    _torchs_own = None


def installed() -> bool:
    """True between install and uninstall."""
    return _torchs_own is not None


def routed(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
           is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False) -> Tensor:
    """scaled_dot_product_attention by regard where it can, else by torch."""
    reason = why_torch(query, key, value, attn_mask)
    if reason is None:
        return scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                                            enable_gqa=enable_gqa)
    if not torch.compiler.is_compiling():
        _log.left_to_torch(reason)
    original: Callable[..., Tensor] = _torchs_own or getattr(torch._C, "_nn").scaled_dot_product_attention
    if isinstance(attn_mask, CausalBias):
        # CausalBias compares the function with the module's attribute, which is ours: let it resolve itself; its own
        # calls come back here without the bias.
        return CausalBias._dispatch(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)


@functools.lru_cache(maxsize=64)
def _missing_on(index: int) -> str:
    """Why regard cannot compute on a GPU; empty: it can."""
    gpus = regard.gpus()
    return gpus[index].missing if index < len(gpus) else "no such GPU is known to the driver that regard found"


_missing: Callable[[int], str] = getattr(torch.compiler, "assume_constant_result")(_missing_on)


def why_torch(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> str | None:
    """Why a call of F.scaled_dot_product_attention is left to torch; None where regard computes it."""
    if not (torch._C._get_flash_sdp_enabled() or _overrideable_enabled()):
        return "torch's sdpa_kernel enables neither FLASH_ATTENTION nor OVERRIDEABLE"
    for name, t in (("query", query), ("key", key), ("value", value), ("attn_mask", attn_mask)):
        if t is None:
            continue
        if type(t) not in _PLAIN and not (name == "attn_mask" and isinstance(t, CausalBias)):
            return f"{name} is a {type(t).__name__}"
        if t.is_nested:
            return f"{name} is nested"
        if t.device != query.device and not isinstance(t, CausalBias):
            return f"{name} is on {t.device}, query on {query.device}"
        if t.is_cuda and (missing := _missing(t.device.index)):
            return f"{name} is on {t.device}: {missing}"
        if t.device.type not in ("cpu", "cuda", "meta"):
            return f"{name} is on {t.device}"
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.dtype not in _TYPES:
            return f"{name} is {str(t.dtype).removeprefix('torch.')}"
        if t.shape[-1] > _HEAD_DIM_LIMIT:
            return f"{name} has a head dim of {t.shape[-1]}, above {_HEAD_DIM_LIMIT}"
    if not query.dtype == key.dtype == value.dtype and autocast_type(query) is None:
        return "query, key and value have different types"
    return None
