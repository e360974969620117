"""flash_attn.cute: flash-attn 4's two functions."""

from regard.flash_attn.cute.interface import flash_attn_func, flash_attn_varlen_func

__version__ = "4.0.0"

__all__ = ["flash_attn_func", "flash_attn_varlen_func"]
