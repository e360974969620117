"""Mask: what a query may see, as a few numbers for each sequence instead of one for each pair.

A Mask looks like the boolean tensor (B, 1, Sq, Skv) that transformers' own mask functions make, True where a query
attends. It stores only its structure, and regard's attention reads that. Any operation on it (a slice, an addition in
a model's own code) computes the whole tensor first and goes on with it, so a Mask is right wherever a tensor would be.
After an operation through which its elements may be written, in place or through a view, they are what counts.

Coordinates are slots: query row i stands at p = i + offset[b], key column j at j. Visible is all of
    j <= p                      causal
    p - left <= j <= p + right  window, each side optional
    floor((p - o) / chunk) == floor((j - o) / chunk), o = start[b], or 0
    start[b] <= j < stop[b]     padding on the left and on the right
    key_mask[b, 0, 0, j]         any other padding
    segment of i == segment of j, where the batch holds packed sequences with boundaries cu_seqlens
"""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Shape(NamedTuple):
    """The part of a mask that is the same for all sequences."""

    causal: bool = False
    left: int | None = None
    right: int | None = None
    chunk: int | None = None


class Mask(Tensor):
    """A boolean mask (B, 1, Sq, Skv) that is computed only where something other than regard asks for its elements.

    offset int32 (B), start and stop int32 (B) or None, key_mask bool (B, 1, 1, Skv) or None, cu_seqlens int32 (n + 1)
    of sequences packed into all B * Sq tokens, or None. elements: None, or all of them, which may have been written.
    """

    # torch.compile reaches these through an fx.Proxy: a name that is one of its methods, as `keys` is, would be hidden.
    _TENSORS = ("offset", "start", "stop", "key_mask", "cu_seqlens", "elements")

    structure: Shape
    offset: Tensor
    start: Tensor | None
    stop: Tensor | None
    key_mask: Tensor | None
    cu_seqlens: Tensor | None
    elements: Tensor | None

    @staticmethod
    def __new__(cls, size: Sequence[int], structure: Shape, offset: Tensor, start: Tensor | None = None,
                stop: Tensor | None = None, key_mask: Tensor | None = None, cu_seqlens: Tensor | None = None,
                elements: Tensor | None = None) -> Mask:
        del structure, start, stop, key_mask, cu_seqlens, elements
        make: Callable[..., Mask] = getattr(Tensor, "_make_wrapper_subclass")
        return make(cls, tuple(size), dtype=torch.bool, device=offset.device)

    def __init__(self, size: Sequence[int], structure: Shape, offset: Tensor, start: Tensor | None = None,
                 stop: Tensor | None = None, key_mask: Tensor | None = None, cu_seqlens: Tensor | None = None,
                 elements: Tensor | None = None) -> None:
        del size
        self.structure = structure
        self.offset = offset
        self.start = start
        self.stop = stop
        self.key_mask = key_mask
        self.cu_seqlens = cu_seqlens
        self.elements = elements

    def dense(self) -> Tensor:
        """The whole of it: bool (B, 1, Sq, Skv)."""
        if self.elements is not None:
            return self.elements
        batch, _, seq_q, seq_kv = self.shape
        device = self.offset.device
        p = (torch.arange(seq_q, device=device) + self.offset[:, None])[:, None, :, None]
        j = torch.arange(seq_kv, device=device)[None, None, None, :]
        seen = torch.ones((batch, 1, seq_q, seq_kv), dtype=torch.bool, device=device)
        causal, left, right, chunk = self.structure
        if causal:
            seen = seen & (j <= p)
        if left is not None:
            seen = seen & (j >= p - left)
        if right is not None:
            seen = seen & (j <= p + right)
        if chunk is not None:
            origin = 0 if self.start is None else self.start[:, None, None, None]
            seen = seen & ((p - origin).div(chunk, rounding_mode="floor") ==
                           (j - origin).div(chunk, rounding_mode="floor"))
        if self.start is not None:
            seen = seen & (j >= self.start[:, None, None, None])
        if self.stop is not None:
            seen = seen & (j < self.stop[:, None, None, None])
        if self.key_mask is not None:
            seen = seen & self.key_mask
        if self.cu_seqlens is not None:
            token = torch.arange(batch * seq_q, device=device)
            segment = torch.bucketize(token, self.cu_seqlens[1:].long(), right=True).view(batch, 1, seq_q)
            seen = seen & (segment[..., None] == segment[..., None, :])
        return seen

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override, unused-ignore]
        del tensor_contents
        held = ", ".join(name for name in self._TENSORS if getattr(self, name) is not None)
        return f"regard.transformers.Mask({tuple(self.shape)}, {self.structure}, with {held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Mask:
        tensors = {name: getattr(self, name) for name in self._TENSORS if getattr(self, name) is not None}
        return Mask(self.shape, self.structure, **{name: t.clone() for name, t in tensors.items()})

    def numpy(self, *, force: bool = False) -> Any:
        return self.dense().numpy(force=force)

    def tolist(self) -> Any:
        return self.dense().tolist()

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return [name for name in self._TENSORS if getattr(self, name) is not None], self.structure

    @staticmethod
    def __tensor_unflatten__(tensors: dict[str, Tensor], structure: Shape, size: Sequence[int],
                             stride: Sequence[int]) -> Mask:
        del stride
        return Mask(size, structure, **tensors)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (),  # type: ignore[override, unused-ignore]
                           kwargs: Any = None) -> Any:
        # A function that writes to an argument, or returns a view of it, gets elements that stay.
        if any(argument.alias_info is not None for argument in func._schema.arguments):
            for mask in (leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Mask)):
                mask.elements = mask.dense()
        args, kwargs = pytree.tree_map_only(Mask, Mask.dense, (args, kwargs or {}))
        return func(*args, **kwargs)
