"""register(): the names under which transformers finds regard, and unregister()."""
from __future__ import annotations

import inspect

import transformers
from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

from regard.torch._error import error

from . import _batching
from ._attention import attention
from ._mask_function import mask_function

NAME = "regard"
BATCHING_NAME = _batching.NAME


def register() -> None:
    """Makes attn_implementation="regard" and, for continuous batching, "regard_flash" known to transformers.

    Again, it changes nothing; `unregister` undoes it. Raises regard.Error where transformers describes masks otherwise.
    """
    if not {"q_length", "q_offset"} <= set(inspect.signature(masking_utils.sdpa_mask).parameters):
        raise error("transformers", transformers.__version__, "a version whose mask functions take q_length and "
                    "q_offset; 5.23 does")
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
