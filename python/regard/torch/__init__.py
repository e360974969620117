"""regard for PyTorch: differentiable calls, torch's own attention functions, and their installation.

    import regard.torch
    out = regard.torch.attention(q, k, v, causal=True)                  # (B, S, H, D), differentiable, compiles
    out = regard.torch.scaled_dot_product_attention(q, k, v)            # torch's signature, (B, H, S, D)
    regard.torch.install()                                              # F.scaled_dot_product_attention is regard's

Needs torch 2.5 or newer; nothing here is compiled against it.
"""
from __future__ import annotations

import torch as _torch

if tuple(int(part) for part in _torch.__version__.split(".")[:2]) < (2, 5):
    raise ImportError(f"regard.torch needs torch 2.5 or newer; this is {_torch.__version__}")

from . import _autograd, _vmap  # noqa: F401  registered on import
from ._api import attention, varlen_attention, with_kvcache
from ._backends import sdpa_kernel
from ._install import install, installed, uninstall
from ._log import log_dispatch
from ._sdpa import scaled_dot_product_attention
from ._varlen import AuxRequest, varlen_attn, varlen_attn_out

__all__ = [
    "AuxRequest", "attention", "install", "installed", "log_dispatch", "scaled_dot_product_attention", "sdpa_kernel",
    "uninstall", "varlen_attention", "varlen_attn", "varlen_attn_out", "with_kvcache",
]
