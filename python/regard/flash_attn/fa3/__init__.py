"""flash_attn_3: flash-attn 3 as a package; flash_attn_interface beside it holds everything."""

from regard.flash_attn.fa3.flash_attn_interface import (
    flash_attn_combine,
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    get_scheduler_metadata,
)

__version__ = "3.0.0"

__all__ = [
    "__version__", "flash_attn_combine", "flash_attn_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func",
    "flash_attn_with_kvcache", "get_scheduler_metadata",
]
