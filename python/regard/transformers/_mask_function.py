"""The mask function of `attn_implementation="regard"`: transformers calls it once a forward for each kind of layer."""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_MAPPING
from transformers import masking_utils as hf

from regard.torch._error import error

from ._mask import Mask
from ._patterns import MaskFunction, Pattern, recognise, segment_starts

logger = logging.getLogger("regard.torch")


@functools.lru_cache(maxsize=None)
def _calls_interface(config_class: type) -> bool:
    """False for a model of transformers' own that computes attention without asking for the registered function."""
    models = MODEL_MAPPING.get(config_class, None)
    for model in models if isinstance(models, tuple) else (models,):
        if model is not None and not model._supports_attention_backend and not model._can_set_attn_implementation():
            return False
    return True


# The same; torch.compile takes its result for a constant and does not look inside.
_may_ask: Callable[[type], bool] = torch.compiler.assume_constant_result(lambda kind: _calls_interface(kind))


def mask_function(batch_size: int, q_length: int, kv_length: int, q_offset: int | Tensor = 0, kv_offset: int = 0,
                  mask_function: MaskFunction = hf.causal_mask_function, attention_mask: Tensor | None = None,
                  local_size: int | None = None, allow_is_causal_skip: bool = True,
                  allow_is_bidirectional_skip: bool = False, use_vmap: bool = False,
                  device: torch.device | str = "cpu", config: Any = None, **kwargs: Any) -> Tensor | None:
    """The mask of one kind of layer, in the least that says it.

    Takes what transformers passes to its own mask functions: queries at positions q_offset + i, keys at kv_offset + j,
    `mask_function` of (batch, head, query position, key position), `attention_mask` bool (B, seen) for padding,
    `local_size` of a window or a chunk, and where None may stand for a plain causal or an empty mask.

    Returns None where transformers' own function for sdpa would (the attention function then goes by the module's
    is_causal), a `Mask` where regard knows the structure, else a bool tensor (B, 1, q_length, kv_length). Raises
    regard.Error for a model whose code would read such a mask in an attention of its own.
    """
    if config is not None and not _may_ask(type(config)):
        raise error("attn_implementation", getattr(config, "_attn_implementation", None), "\"eager\": the attention of "
                    f"this model ({type(config).__name__}) is its own code, not reached by transformers' interface")
    padding = _window_of(attention_mask, kv_length, kv_offset)
    lengths_read = not _tracing(padding, q_offset)
    if padding is not None and lengths_read and bool(padding.all()):
        padding = None
    is_local = local_size is not None and kv_length >= local_size
    if padding is None and not is_local:
        if allow_is_bidirectional_skip:
            return None
        if allow_is_causal_skip and lengths_read and _ends_together(q_length, kv_length, q_offset, kv_offset):
            return None
    pattern = None if use_vmap else recognise(mask_function)
    mask = None if pattern is None else _structured((batch_size, 1, q_length, kv_length), pattern, q_offset, kv_offset,
                                                    padding, lengths_read, device)
    if mask is not None:
        return mask
    if not torch.compiler.is_compiling():
        logger.info("mask (%d, 1, %d, %d) computed element by element: %s", batch_size, q_length, kv_length,
                    "a mask function of the model's own" if pattern is None else f"{pattern.shape} at key {kv_offset}")
    make: Callable[..., Tensor] = getattr(hf, "sdpa_mask")
    return make(
        batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
        mask_function=mask_function, attention_mask=attention_mask, local_size=local_size, allow_is_causal_skip=False,
        allow_is_bidirectional_skip=False, use_vmap=use_vmap, device=device, **kwargs)


def _tracing(padding: Tensor | None, q_offset: int | Tensor) -> bool:
    """True where the elements of these cannot be read."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    return any(isinstance(t, torch._subclasses.FakeTensor) for t in (padding, q_offset))


def _window_of(attention_mask: Tensor | None, kv_length: int, kv_offset: int) -> Tensor | None:
    """The part of a padding mask (B, seen) that belongs to the keys; slots that it does not reach are padding."""
    if attention_mask is None:
        return None
    missing = kv_offset + kv_length - attention_mask.shape[-1]
    if missing > 0:
        attention_mask = torch.nn.functional.pad(attention_mask, (0, missing))
    return attention_mask[:, kv_offset:kv_offset + kv_length].bool()


def _ends_together(q_length: int, kv_length: int, q_offset: int | Tensor, kv_offset: int) -> bool:
    """One query that sees all keys, or as many queries as keys, at the same places."""
    if q_length != 1 and q_length != kv_length:
        return False
    return bool(q_offset + q_length == kv_offset + kv_length)


def _structured(size: tuple[int, int, int, int], pattern: Pattern, q_offset: int | Tensor, kv_offset: int,
                padding: Tensor | None, lengths_read: bool, device: torch.device | str) -> Mask | None:
    """The Mask of a pattern, in slots; None where the pattern has no such form."""
    batch, _, q_length, kv_length = size
    offset = torch.zeros(batch, dtype=torch.int32, device=device) + (q_offset - kv_offset)
    offset = offset.to(torch.int32)
    if pattern.segments is not None:
        if padding is not None or q_length != kv_length or pattern.shape.chunk is not None:
            return None
        segments = pattern.segments.expand(batch, -1)
        return Mask(size, pattern.shape, offset, cu_seqlens=segment_starts(segments))
    start = stop = key_mask = None
    if padding is not None:
        padding = padding.expand(batch, -1)
        run = _run(padding) if lengths_read else None
        if run is None:
            key_mask = padding[:, None, None, :]
        else:
            start, stop = run
    if pattern.shape.chunk is not None:
        # A Mask's chunks count from `start`: the first real token has to be one of its slots, and the chunks' origin.
        first = torch.zeros_like(offset) if start is None else start
        origin = first if pattern.chunk_start is None else pattern.chunk_start.clamp(max=kv_length)
        if kv_offset != 0 or key_mask is not None or not bool((first == origin).all()):
            return None
    return Mask(size, pattern.shape, offset, start, stop, key_mask)


def _run(padding: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """(start, stop) of the one run of True in each row, stop None where all reach the end; None for any other mask."""
    length = padding.shape[-1]
    ones = padding.to(torch.uint8)
    count = padding.sum(-1)
    start = torch.where(count > 0, ones.argmax(-1), length)
    stop = torch.where(count > 0, length - ones.flip(-1).argmax(-1), length)
    if not bool((stop - start == count).all()):
        return None
    return start.to(torch.int32), None if bool((stop == length).all()) else stop.to(torch.int32)
