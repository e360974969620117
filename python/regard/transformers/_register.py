"""register(): the names under which transformers finds regard, and unregister()."""
from __future__ import annotations

from transformers import AttentionInterface, AttentionMaskInterface

from ._attention import attention
from ._mask_function import mask_function

NAME = "regard"


def register() -> None:
    """Makes `attn_implementation="regard"` known to transformers. Again, it changes nothing; `unregister` undoes it."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask_function)


def unregister() -> None:
    """Takes the name out again. Models that were made with it can no longer run; set another implementation first."""
    AttentionInterface._global_mapping.pop(NAME, None)
    AttentionMaskInterface._global_mapping.pop(NAME, None)


def registered() -> bool:
    """True between register and unregister."""
    return NAME in AttentionInterface._global_mapping
