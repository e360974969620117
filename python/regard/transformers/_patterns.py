"""What transformers' mask functions mean: from functions of (batch, head, query, key) back to numbers.

transformers describes a mask by a function, made of a few known ones (causal, sliding window, chunk, packed sequences)
by intersection. `recognise` takes such a function apart. A function that it does not know has no pattern, and its mask
is computed element by element.

Functions are known by where they were defined, so what they mean is not taken on trust: before the first use, masks
made from patterns are compared with those that transformers itself computes. If one differs, none is recognised.
"""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import masking_utils as hf

from ._mask import Mask, Shape

MaskFunction = Callable[..., Any]


class Pattern(NamedTuple):
    """A mask function's meaning; visible is what all of it allows."""

    shape: Shape = Shape()
    chunk_start: Tensor | None = None  # (B), where the first chunk of each sequence begins
    segments: Tensor | None = None     # (B, S), the sequence that each token belongs to


def recognise(function: MaskFunction) -> Pattern | None:
    """The pattern of a mask function of transformers; None where it has another meaning, or an unknown one."""
    if function is hf.causal_mask_function or function is hf.bidirectional_mask_function:
        return _part(function)
    if torch.compiler.is_compiling() or not _meanings_hold():
        return None
    return _part(function)


def segment_starts(segments: Tensor) -> Tensor:
    """cu_seqlens int32 (n + 1) of packed sequences, from the sequence number (B, S) of each token."""
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    end = torch.tensor([segments.numel()], device=segments.device)
    return torch.cat([begins.flatten().nonzero().flatten(), end]).to(torch.int32)


def _part(function: MaskFunction) -> Pattern | None:
    if function is hf.causal_mask_function:
        return Pattern(Shape(causal=True))
    if function is hf.bidirectional_mask_function:
        return Pattern()
    closure: Sequence[Any] = getattr(function, "__closure__", None) or ()
    if not closure or getattr(function, "__module__", None) != hf.__name__:
        return None
    held = dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in closure)))
    maker = function.__qualname__.partition(".")[0]
    if maker == "and_masks":
        return _intersection([_part(part) for part in held["mask_functions"]])
    if maker == "sliding_window_overlay":
        return Pattern(Shape(left=held["sliding_window"] - 1))
    if maker == "sliding_window_bidirectional_overlay":
        return Pattern(Shape(left=held["sliding_window"], right=held["sliding_window"]))
    if maker == "chunked_overlay":
        return Pattern(Shape(chunk=held["chunk_size"]), chunk_start=held["left_padding"])
    if maker == "packed_sequence_mask_function":
        return Pattern(segments=held["packed_sequence_mask"])
    if maker == "remap_positions_for_packed_sequence":
        # Positions inside a packed sequence count up by one, so their differences, which are all that causal and
        # windowed masks look at, are those of the slots. A chunk looks at the positions themselves.
        inner = _part(held["mask_function"])
        return None if inner is None or inner.shape.chunk is not None else inner
    return None


def _intersection(parts: Sequence[Pattern | None]) -> Pattern | None:
    whole = Pattern()
    for part in parts:
        if part is None:
            return None
        mine, its = whole.shape, part.shape
        if (mine.chunk and its.chunk) or (whole.segments is not None and part.segments is not None):
            return None
        shape = Shape(mine.causal or its.causal, _narrower(mine.left, its.left), _narrower(mine.right, its.right),
                      mine.chunk or its.chunk)
        whole = Pattern(shape, part.chunk_start if its.chunk else whole.chunk_start,
                        whole.segments if part.segments is None else part.segments)
    return whole


def _narrower(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


@functools.lru_cache(maxsize=1)
def _meanings_hold() -> bool:
    """Whether patterns give the masks that this version of transformers computes, for each function known above."""
    size = 7
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5]])
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]])
    starts = torch.tensor([2, 0])
    window = hf.sliding_window_causal_mask_function(3)
    known: list[tuple[MaskFunction, Pattern]] = [
        (hf.causal_mask_function, Pattern(Shape(causal=True))),
        (hf.bidirectional_mask_function, Pattern()),
        (window, Pattern(Shape(causal=True, left=2))),
        (hf.sliding_window_bidirectional_mask_function(2), Pattern(Shape(left=2, right=2))),
        (hf.chunked_causal_mask_function(3, starts), Pattern(Shape(causal=True, chunk=3), chunk_start=starts)),
        (hf.packed_sequence_compatibility_function(window, positions, segments),
         Pattern(Shape(causal=True, left=2), segments=segments))]
    make: Callable[..., Tensor] = getattr(hf, "sdpa_mask")
    for function, meaning in known:
        pattern = _part(function)
        if pattern is None or pattern.shape != meaning.shape or pattern.chunk_start is not meaning.chunk_start or \
                pattern.segments is not meaning.segments:
            return False
        ours = Mask((2, 1, size, size), pattern.shape, torch.zeros(2, dtype=torch.int32), start=pattern.chunk_start,
                    cu_seqlens=None if pattern.segments is None else segment_starts(pattern.segments)).dense()
        theirs = make(batch_size=2, q_length=size, kv_length=size, mask_function=function, allow_is_causal_skip=False)
        if pattern.chunk_start is not None:  # where a Mask's chunks start, it also hides what is before
            theirs = theirs & (torch.arange(size) >= pattern.chunk_start[:, None, None, None])
        if not torch.equal(ours, theirs):
            return False
    return True
