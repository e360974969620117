"""flash-attn's Python API on regard: flash-attn 2 here, 3 in regard.flash_attn.fa3, 4's functions in .cute.

    >>> from regard.flash_attn import flash_attn_func
    >>> import regard.flash_attn; regard.flash_attn.install()   # from now on `import flash_attn` finds regard

docs/flash_attn.md has the tables of names and every point where results differ.
"""

from regard.flash_attn._install import install, uninstall
from regard.flash_attn.flash_attn_interface import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)

# The version of flash-attn whose interface this is; probes compare it.
__version__ = "2.8.4"

__all__ = [
    "__version__", "flash_attn_func", "flash_attn_kvpacked_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func", "flash_attn_varlen_qkvpacked_func", "flash_attn_with_kvcache", "install",
    "uninstall",
]
