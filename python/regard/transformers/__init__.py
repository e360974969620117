"""regard for Hugging Face transformers: `attn_implementation="regard"`.

    import regard.transformers
    regard.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="regard")

"regard_flash" is the name for continuous batching. docs/transformers.md says what works and how masks reach regard.
"""
from __future__ import annotations

from regard.torch import log_dispatch

from ._attention import attention
from ._mask import Mask
from ._mask_function import mask_function
from ._register import register, registered, unregister

__all__ = ["Mask", "attention", "log_dispatch", "mask_function", "register", "registered", "unregister"]
