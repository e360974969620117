"""xFormers' memory_efficient_attention and its attention biases, computed by regard.

    from regard.xformers import LowerTriangularMask, memory_efficient_attention
    out = memory_efficient_attention(q, k, v, attn_bias=LowerTriangularMask())      # (B, M, H, K)

The biases here are descriptions, not matrices. Those of an installed xFormers are understood too, by their class names.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import torch as regard_torch
from .torch._error import error

__all__ = [
    "AttentionBias", "BlockDiagonalCausalFromBottomRightMask", "BlockDiagonalCausalMask", "BlockDiagonalMask",
    "LowerTriangularFromBottomRightLocalAttentionMask", "LowerTriangularFromBottomRightMask", "LowerTriangularMask",
    "LowerTriangularMaskWithTensorBias", "memory_efficient_attention",
]


class AttentionBias:
    """A bias that memory_efficient_attention understands without a matrix."""

    def visible(self, rows: int, keys: int) -> Tensor:
        """bool (rows, keys): which key each row sees."""
        raise NotImplementedError

    def materialize(self, shape: Sequence[int], dtype: torch.dtype = torch.float32,
                    device: torch.device | str = "cpu") -> Tensor:
        """The bias as a matrix of `shape` (..., rows, keys): 0 where a key is visible, else -inf. For tests."""
        seen = self.visible(shape[-2], shape[-1]).to(device)
        return torch.zeros(tuple(shape), dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))


def _triangle(rows: int, keys: int, offset: int, window: int | None = None) -> Tensor:
    """Row i stands at i + offset and sees itself and what is before, `window` keys of it where given."""
    p = torch.arange(rows)[:, None] + offset
    j = torch.arange(keys)[None, :]
    return (j <= p) if window is None else (j <= p) & (j > p - window)


class LowerTriangularMask(AttentionBias):
    """Causal, aligned at the top left: row i sees keys 0 to i."""

    def visible(self, rows: int, keys: int) -> Tensor:
        return _triangle(rows, keys, 0)

    def add_bias(self, bias: Tensor) -> LowerTriangularMaskWithTensorBias:
        """The same with a tensor added to the scores."""
        return LowerTriangularMaskWithTensorBias(bias)


class LowerTriangularMaskWithTensorBias(LowerTriangularMask):
    """Causal from the top left, with `bias` (B, H, M, M') or broadcastable added to the scores; it may require grad."""

    def __init__(self, bias: Tensor) -> None:
        self._bias = bias

    def materialize(self, shape: Sequence[int], dtype: torch.dtype = torch.float32,
                    device: torch.device | str = "cpu") -> Tensor:
        return super().materialize(shape, dtype, device) + self._bias


class LowerTriangularFromBottomRightMask(AttentionBias):
    """Causal, aligned at the bottom right: the last row sees every key."""

    def visible(self, rows: int, keys: int) -> Tensor:
        return _triangle(rows, keys, keys - rows)

    def make_local_attention(self, window_size: int) -> LowerTriangularFromBottomRightLocalAttentionMask:
        """The same, seeing only the last `window_size` keys."""
        return LowerTriangularFromBottomRightLocalAttentionMask(window_size)


class LowerTriangularFromBottomRightLocalAttentionMask(LowerTriangularFromBottomRightMask):
    """Causal from the bottom right over the last `window_size` keys, the row's own included."""

    def __init__(self, window_size: int) -> None:
        if window_size < 1:
            raise error("window_size", window_size, "at least 1")
        self._window_size = window_size

    def visible(self, rows: int, keys: int) -> Tensor:
        return _triangle(rows, keys, keys - rows, self._window_size)


class _SeqLenInfo:
    """Where each of several sequences begins in a packed tensor."""

    def __init__(self, seqlens: Iterable[int], device: Any = None) -> None:
        starts = [0]
        for length in seqlens:
            if length < 0:
                raise error("seqlens", length, "lengths of at least 0")
            starts.append(starts[-1] + int(length))
        self.seqstart_py: list[int] = starts
        self.seqstart: Tensor = torch.tensor(starts, dtype=torch.int32, device=device or "cpu")
        lengths = [end - begin for begin, end in zip(starts, starts[1:])]
        self.max_seqlen: int = max(lengths, default=0)
        self.min_seqlen: int = min(lengths, default=0)

    def intervals(self) -> list[tuple[int, int]]:
        """(begin, end) of each sequence."""
        return list(zip(self.seqstart_py, self.seqstart_py[1:]))

    def split(self, x: Tensor, batch_sizes: Sequence[int] | None) -> list[Tensor]:
        """x (1, sum, ...) back into tensors of (batch size, length, ...)."""
        total = self.seqstart_py[-1]
        if x.dim() < 2 or x.shape[0] != 1 or x.shape[1] != total:
            raise error("tensor", tuple(x.shape), f"(1, {total}, ...)")
        sizes = [1] * (len(self.seqstart_py) - 1) if batch_sizes is None else list(batch_sizes)
        parts, at = [], 0
        for size in sizes:
            begin, end = self.seqstart_py[at], self.seqstart_py[at + size]
            parts.append(x[0, begin:end].reshape(size, (end - begin) // max(size, 1), *x.shape[2:]))
            at += size
        return parts


class BlockDiagonalMask(AttentionBias):
    """Sequences packed one after the other: each query sees the keys of its own sequence.

    Made by `from_seqlens` or from lists of tensors; `split` takes a result apart again. Tensors are (1, sum, H, K).
    """

    def __init__(self, q_seqinfo: _SeqLenInfo, k_seqinfo: _SeqLenInfo,
                 _batch_sizes: Sequence[int] | None = None) -> None:
        self.q_seqinfo = q_seqinfo
        self.k_seqinfo = k_seqinfo
        self._batch_sizes = _batch_sizes

    @classmethod
    def from_seqlens(cls, q_seqlen: Sequence[int], kv_seqlen: Sequence[int] | None = None, *,
                     device: Any = None) -> BlockDiagonalMask:
        """From the lengths of the queries and, where they differ, of the keys. `device`: where the tensors will be."""
        q = _SeqLenInfo(q_seqlen, device)
        if kv_seqlen is None or list(kv_seqlen) == list(q_seqlen):
            return cls(q, q)
        if len(kv_seqlen) != len(q_seqlen):
            raise error("kv_seqlen", f"{len(kv_seqlen)} lengths", f"{len(q_seqlen)}, one for each of q_seqlen")
        return cls(q, _SeqLenInfo(kv_seqlen, device))

    @classmethod
    def from_tensor_list(cls, tensors: Sequence[Tensor]) -> tuple[BlockDiagonalMask, Tensor]:
        """From tensors (B_i, M_i, ...): the bias, and the tensors packed as (1, sum of B_i * M_i, ...)."""
        return cls._of_lists(tensors, tensors), _pack(tensors)

    @classmethod
    def from_tensor_lists_qk(cls, tensors_q: Sequence[Tensor],
                             tensors_k: Sequence[Tensor]) -> tuple[BlockDiagonalMask, Tensor, Tensor]:
        """The same with queries and keys of their own: bias, packed q, packed k."""
        return cls._of_lists(tensors_q, tensors_k), _pack(tensors_q), _pack(tensors_k)

    @classmethod
    def from_tensor_lists_qkv(
            cls, tensors_q: Sequence[Tensor], tensors_k: Sequence[Tensor],
            tensors_v: Sequence[Tensor] | None = None) -> tuple[BlockDiagonalMask, Tensor, Tensor, Tensor | None]:
        """The same with values: bias, packed q, packed k, packed v or None."""
        if tensors_v is not None and [v.shape[:2] for v in tensors_v] != [k.shape[:2] for k in tensors_k]:
            raise error("tensors_v", [tuple(v.shape[:2]) for v in tensors_v],
                        "the batch sizes and lengths of tensors_k")
        packed_v = None if tensors_v is None else _pack(tensors_v)
        return cls._of_lists(tensors_q, tensors_k), _pack(tensors_q), _pack(tensors_k), packed_v

    @classmethod
    def _of_lists(cls, tensors_q: Sequence[Tensor], tensors_k: Sequence[Tensor]) -> BlockDiagonalMask:
        sizes = [t.shape[0] for t in tensors_q]
        if [t.shape[0] for t in tensors_k] != sizes:
            raise error("tensors_k", [t.shape[0] for t in tensors_k], f"the batch sizes of tensors_q, {sizes}")
        bias = cls.from_seqlens([t.shape[1] for t in tensors_q for _ in range(t.shape[0])],
                                [t.shape[1] for t in tensors_k for _ in range(t.shape[0])],
                                device=tensors_q[0].device if tensors_q else None)
        bias._batch_sizes = sizes
        return bias

    def split_queries(self, tensor: Tensor) -> list[Tensor]:
        """Takes (1, sum of query lengths, ...) apart."""
        return self.q_seqinfo.split(tensor, self._batch_sizes)

    def split_kv(self, tensor: Tensor) -> list[Tensor]:
        """Takes (1, sum of key lengths, ...) apart."""
        return self.k_seqinfo.split(tensor, self._batch_sizes)

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Takes (1, sum, ...) apart, where queries and keys have the same lengths."""
        if self.q_seqinfo is not self.k_seqinfo:
            raise error("split", "queries and keys of different lengths", "split_queries or split_kv")
        return self.q_seqinfo.split(tensor, self._batch_sizes)

    def make_causal(self) -> BlockDiagonalCausalMask:
        """Each sequence causal, aligned at its top left."""
        return BlockDiagonalCausalMask(self.q_seqinfo, self.k_seqinfo, self._batch_sizes)

    def make_causal_from_bottomright(self) -> BlockDiagonalCausalFromBottomRightMask:
        """Each sequence causal, aligned at its bottom right."""
        return BlockDiagonalCausalFromBottomRightMask(self.q_seqinfo, self.k_seqinfo, self._batch_sizes)

    def block(self, rows: int, keys: int) -> Tensor:
        """bool (rows, keys): what the rows of one sequence see of it."""
        return torch.ones(rows, keys, dtype=torch.bool)

    def visible(self, rows: int, keys: int) -> Tensor:
        seen = torch.zeros(rows, keys, dtype=torch.bool)
        for (q0, q1), (k0, k1) in zip(self.q_seqinfo.intervals(), self.k_seqinfo.intervals()):
            seen[q0:q1, k0:k1] = self.block(q1 - q0, k1 - k0)
        return seen


class BlockDiagonalCausalMask(BlockDiagonalMask):
    """BlockDiagonalMask whose sequences are causal, each aligned at its top left."""

    def block(self, rows: int, keys: int) -> Tensor:
        return _triangle(rows, keys, 0)


class BlockDiagonalCausalFromBottomRightMask(BlockDiagonalMask):
    """BlockDiagonalMask whose sequences are causal, each aligned at its bottom right; no more queries than keys."""

    def __init__(self, q_seqinfo: _SeqLenInfo, k_seqinfo: _SeqLenInfo,
                 _batch_sizes: Sequence[int] | None = None) -> None:
        super().__init__(q_seqinfo, k_seqinfo, _batch_sizes)
        for (q0, q1), (k0, k1) in zip(q_seqinfo.intervals(), k_seqinfo.intervals()):
            if q1 - q0 > k1 - k0:
                raise error("q_seqlen", q1 - q0, f"at most the {k1 - k0} keys of its sequence")

    def block(self, rows: int, keys: int) -> Tensor:
        return _triangle(rows, keys, keys - rows)


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(1, t.shape[0] * t.shape[1], *t.shape[2:]) for t in tensors], dim=1)


def memory_efficient_attention(query: Tensor, key: Tensor, value: Tensor,
                               attn_bias: Tensor | AttentionBias | None = None, p: float = 0.0,
                               scale: float | None = None, *, op: Any = None,
                               output_dtype: torch.dtype | None = None) -> Tensor:
    """xFormers' memory_efficient_attention, computed by regard; differentiable, tensor biases included.

    query (B, M, H, K), key (B, M', H, K), value (B, M', H, Kv); without heads (B, M, K); grouped (B, M, G, H, K), whose
    keys and values may be expanded over H (then each group's are read once). attn_bias: one of the classes above, or a
    tensor added to the scores, (B, H, M, M') or broadcastable (grouped: (B, G, H, M, M'); without heads: (B, M, M')).
    `p` is the dropout probability, its seed from torch's default generator. `op` is accepted and ignored: regard
    chooses the kernel. f32, f16, bf16 on the CPU or CUDA.

    Returns (B, M, H, Kv), or as query's form says, in `output_dtype` if given. Raises regard.Error.
    """
    del op
    if query.dim() not in (3, 4, 5) or not query.dim() == key.dim() == value.dim():
        raise error("query", f"{query.dim()}, {key.dim()} and {value.dim()} dims of query, key and value",
                    "(B, M, H, K) each, or (B, M, K), or (B, M, G, H, K)")
    q, k, v = _four_dims(query, key, value)
    options: dict[str, Any] = {"dropout": p, "scale": scale, "out_dtype": output_dtype}
    kinds = {cls.__name__ for cls in type(attn_bias).__mro__}
    described = "AttentionBias" in kinds  # xFormers' own may be tensors as well
    bias = getattr(attn_bias, "_bias", None) if described else attn_bias
    if bias is not None and not isinstance(bias, Tensor):
        raise error("attn_bias", type(attn_bias).__name__, "a tensor or an attention bias of this module")
    if bias is not None:
        options["mask" if bias.dtype == torch.bool else "bias"] = _four_dim_bias(bias, query)
    if "BlockDiagonalMask" in kinds:
        out = _block_diagonal(q, k, v, attn_bias, kinds, options)
    else:
        if described:
            options.update(_dense_options(attn_bias, kinds))
        out = regard_torch.attention(q, k, v, **options)
    return out.reshape(*query.shape[:-1], value.shape[-1])


def _four_dims(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, M, heads, K) of all three; keys and values that are expanded over the heads of a group stay one."""
    if query.dim() == 4:
        return query, key, value
    if query.dim() == 3:
        return query.unsqueeze(2), key.unsqueeze(2), value.unsqueeze(2)
    if all(t.shape[3] == 1 or t.stride(3) == 0 for t in (key, value)) and 0 not in key.shape[2:4]:
        return query.flatten(2, 3), key[:, :, :, 0], value[:, :, :, 0]
    return query.flatten(2, 3), key.flatten(2, 3), value.flatten(2, 3)


def _four_dim_bias(bias: Tensor, query: Tensor) -> Tensor:
    """A tensor bias as (B | 1, heads | 1, M | 1, M' | 1)."""
    if query.dim() == 5 and bias.dim() == 5:
        groups, heads = query.shape[2:4]
        return bias.expand(bias.shape[0], groups, heads, *bias.shape[3:]).flatten(1, 2)
    if query.dim() == 3 and bias.dim() == 3:
        return bias.unsqueeze(1)
    if bias.dim() > 4:
        raise error("attn_bias", f"{bias.dim()} dims", "those of the scores: (B, H, M, M')")
    return bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))


def _dense_options(attn_bias: Any, kinds: set[str]) -> dict[str, Any]:
    if "LowerTriangularFromBottomRightMask" in kinds:
        window = getattr(attn_bias, "_window_size", None)
        return {"causal": True, "window": (None if window is None else window - 1, None)}
    if "LowerTriangularMask" in kinds:
        return {"causal": True, "q_offset": 0}
    raise error("attn_bias", type(attn_bias).__name__, "a tensor, or one of " + ", ".join(
        name for name in __all__ if name.endswith(("Mask", "Bias")) and name != "AttentionBias"))


def _block_diagonal(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any, kinds: set[str],
                    options: dict[str, Any]) -> Tensor:
    supported = {"BlockDiagonalMask", "BlockDiagonalCausalMask", "BlockDiagonalCausalFromBottomRightMask"}
    if type(attn_bias).__name__ not in supported:
        raise error("attn_bias", type(attn_bias).__name__, "one of " + ", ".join(sorted(supported)))
    if q.shape[0] != 1 or k.shape[0] != 1:
        raise error("query", f"a batch of {q.shape[0]}", "1: a block-diagonal bias packs its sequences along M")
    starts_q, starts_k = attn_bias.q_seqinfo, attn_bias.k_seqinfo
    for name, t, info in (("query", q, starts_q), ("key", k, starts_k)):
        if t.shape[1] != info.seqstart_py[-1]:
            raise error(name, f"{t.shape[1]} rows", f"{info.seqstart_py[-1]}, the sum of attn_bias's lengths")
    if "BlockDiagonalCausalMask" in kinds:
        sequences = len(starts_q.seqstart_py) - 1
        options = {**options, "causal": True, "q_offset": torch.zeros(sequences, dtype=torch.int32, device=q.device)}
    elif "BlockDiagonalCausalFromBottomRightMask" in kinds:
        options = {**options, "causal": True}
    if q.is_cuda:
        options = {**options, "max_seqlen_q": starts_q.max_seqlen, "max_seqlen_kv": starts_k.max_seqlen}
    cu_seqlens = (info.seqstart.to(device=q.device, dtype=torch.int32) for info in (starts_q, starts_k))
    out: Tensor = regard_torch.varlen_attention(q[0], k[0], v[0], *cu_seqlens, **options)
    return out.unsqueeze(0)
