"""register(): the names under which transformers finds regard, and unregister()."""
from __future__ import annotations

from transformers import AttentionInterface, AttentionMaskInterface

from . import _batching
from ._attention import attention
from ._mask_function import mask_function

NAME = "regard"
BATCHING_NAME = _batching.NAME


def register() -> None:
    """Makes attn_implementation="regard" and, for continuous batching, "regard_flash" known to transformers.

    Again, it changes nothing; `unregister` undoes it.
    """
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask_function)
    AttentionInterface.register(BATCHING_NAME, _batching.batching_attention)
    AttentionMaskInterface.register(BATCHING_NAME, mask_function)
    _batching.install_loader()


def unregister() -> None:
    """Takes the names out again. Models that use them can no longer run; set another implementation first."""
    _batching.remove_loader()
    for interface in (AttentionInterface, AttentionMaskInterface):
        for name in (NAME, BATCHING_NAME):
            interface._global_mapping.pop(name, None)


def registered() -> bool:
    """True between register and unregister."""
    return NAME in AttentionInterface._global_mapping
