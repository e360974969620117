"""Continuous batching (`model.generate_batch`): the attention function of the name "regard_flash", and its loader.

transformers lets a kernel of its user's take part in continuous batching only if its name contains "flash", and then
looks for flash-attn's functions under that name. Those are regard.flash_attn's. They are found because `_lazy_imports`
of transformers.modeling_flash_attention_utils, which knows its own names only, is wrapped while regard is registered.
"""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import modeling_flash_attention_utils as flash_utils

import regard.flash_attn
import regard.flash_attn.bert_padding
from regard.torch._error import error

from ._attention import attention

NAME = "regard_flash"

_theirs: Callable[..., Any] | None = None  # transformers' loader while ours stands in its place


def batching_attention(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor,
                       attention_mask: Tensor | None, cache: Any = None, **kwargs: Any) -> tuple[Tensor, None]:
    """`attention`, which in continuous batching first writes key and value (1, Hkv, T, D) to the paged `cache`.

    The cache gives back the keys and values of all sequences of the step, packed, and their cu_seq_lens, which say
    all that a mask would: the mask of such a step knows the new tokens only, and is not read.
    """
    if cache is not None:
        if kwargs.get("block_table") is not None:
            raise error("block_table", "a table of pages", "None, which max_blocks_per_request=0 in the "
                        "ContinuousBatchingConfig gives")
        key, value = cache.update(key_states=key, value_states=value, layer_idx=getattr(module, "layer_idx"),
                                  kwargs=kwargs)
        attention_mask = None
    return attention(module, query, key, value, attention_mask, **kwargs)


def install_loader() -> None:
    """Lets transformers load NAME's functions. Again, it changes nothing."""
    global _theirs
    if _theirs is None:
        _theirs = getattr(flash_utils, "_lazy_imports")
        setattr(flash_utils, "_lazy_imports", _load)


def remove_loader() -> None:
    """Undoes `install_loader`."""
    global _theirs
    if _theirs is None:
        return
    if getattr(flash_utils, "_lazy_imports") is not _load:
        raise error("transformers.modeling_flash_attention_utils._lazy_imports", "another library's function",
                    "the one that regard put there; undo the later replacement first")
    setattr(flash_utils, "_lazy_imports", _theirs)
    _theirs = None
    if getattr(flash_utils, "_loaded_implementation") == NAME:
        setattr(flash_utils, "_loaded_implementation", None)


def _load(implementation: str | None, *args: Any, **kwargs: Any) -> Any:
    if implementation != NAME:
        assert _theirs is not None
        return _theirs(implementation, *args, **kwargs)
    ours = regard.flash_attn
    return (ours.flash_attn_func, ours.flash_attn_varlen_func, ours.flash_attn_with_kvcache,
            ours.bert_padding.pad_input, ours.bert_padding.unpad_input)
