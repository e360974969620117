"""Which way a call goes: straight to the library, or through torch's dispatcher.

Plain eager code needs nothing from the dispatcher (no tracing, no transform, no mode), and goes straight, which saves
most of a small call's time; where a gradient is wanted, through one autograd node. Everything else goes through the
custom ops.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_PLAIN = (Tensor, torch.nn.Parameter)
_C: Any = torch._C


def inside_func() -> bool:
    """True inside torch.func's transforms (grad, vmap, ...)."""
    return _C._functorch.peek_interpreter_stack() is not None


def is_watched() -> bool:
    """True where torch wants to see every op: it compiles, traces, transforms, or a dispatch mode is on."""
    return bool(torch.compiler.is_compiling() or _C._len_torch_dispatch_stack() or inside_func()
                or forward_ad._current_level >= 0 or _C._get_tracing_state() is not None)


def is_direct(q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any]) -> bool:
    """True where an op would only be forwarded to its kernel: nothing watches, and no gradient is wanted."""
    if is_watched():
        return False
    grad = torch.is_grad_enabled()
    for t in (q, k, v):
        if type(t) not in _PLAIN or (grad and t.requires_grad) or not (t.is_cpu or t.is_cuda):
            return False
    for t in options.values():
        if isinstance(t, Tensor) and (type(t) not in _PLAIN or (grad and t.requires_grad)
                                      or not (t.is_cpu or t.is_cuda)):
            return False
    return True


def is_recordable(q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any], with_gradient: Sequence[str]) -> bool:
    """True where nothing watches and only q, k, v and the options named may require grad."""
    if is_watched():
        return False
    for t in (q, k, v):
        if type(t) not in _PLAIN or not (t.is_cpu or t.is_cuda):
            return False
    for name, t in options.items():
        if isinstance(t, Tensor) and (type(t) not in _PLAIN or not (t.is_cpu or t.is_cuda)
                                      or (t.requires_grad and name not in with_gradient)):
            return False
    return True


def is_batch_of_gradients(t: Tensor) -> bool:
    """True for what torch.autograd.grad(..., is_grads_batched=True) sends through a backward."""
    return bool(_C._functorch.is_legacy_batchedtensor(t))


def plain(t: Tensor) -> Tensor:
    """`t` outside autograd."""
    return t.detach() if t.requires_grad or inside_func() else t


def autocast_type(q: Tensor) -> torch.dtype | None:
    """The type that autocast of q's device gives q, k and v; None outside autocast."""
    device = "cuda" if q.is_cuda else "cpu"
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def cast(t: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`t` in `dtype` as autocast does it: floating types of 16 and 32 bits only, and nothing for None."""
    if dtype is None or t.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return t
    return t.to(dtype)
