"""Translations between flash-attn's arguments and regard's; each difference of docs/flash_attn.md is one function."""

from __future__ import annotations

import math
import re
from typing import Any, Sequence, overload

import torch
from torch import Tensor

from regard import Error


@overload
def maybe_contiguous(x: Tensor) -> Tensor: ...
@overload
def maybe_contiguous(x: None) -> None: ...
@overload
def maybe_contiguous(x: Tensor | None) -> Tensor | None: ...
def maybe_contiguous(x: Tensor | None) -> Tensor | None:
    """x, copied if its last dim is strided (a stride that does not matter, of an empty tensor, counts)."""
    if x is None or x.stride(-1) == 1:
        return x
    return x.clone(memory_format=torch.contiguous_format)


def round_multiple(x: int, m: int) -> int:
    """x rounded up to a multiple of m."""
    return -(-x // m) * m


def window_pair(window_size: Sequence[int | None] | Tensor) -> tuple[int, int]:
    """A window as flash-attn writes it, tuple, list or tensor of two; None counts as -1, no bound."""
    if type(window_size) is tuple and len(window_size) == 2:
        left, right = window_size
        if type(left) is int and type(right) is int:
            return left, right
    sides = window_size.tolist() if isinstance(window_size, Tensor) else list(window_size)
    if len(sides) != 2:
        raise Error("window_size", str(window_size), "two integers, (left, right)")
    left, right = (-1 if side is None else int(side) for side in sides)
    return left, right


def mask_options(
    softmax_scale: float | None, causal: bool, left: int, right: int, softcap: float | None, chunk: int = 0
) -> dict[str, Any]:
    """Options of a regard call; only those that are set, since each costs time on its way."""
    options: dict[str, Any] = {}
    if softmax_scale is not None:
        options["scale"] = float(softmax_scale)
    if causal:
        options["causal"] = True
    if left >= 0 or (right >= 0 and not causal):
        options["window"] = (left if left >= 0 else None, right if right >= 0 and not causal else None)
    if softcap is not None and softcap > 0:
        options["softcap"] = float(softcap)
    if chunk > 0:
        options["chunk"] = int(chunk)
    return options


# regard's names of arguments -> those of flash-attn's functions, for errors.
COMMON_NAMES = {
    "scale": "softmax_scale", "window": "window_size", "dropout": "dropout_p", "cu_seqlens_kv": "cu_seqlens_k",
    "seqused_kv": "seqused_k", "seqlens_kv": "cu_seqlens_k", "leftpad": "leftpad_k", "chunk": "attention_chunk",
    "sink": "s_aux", "cu_seqlens_new": "cu_seqlens_k_new", "probabilities": "return_attn_probs",
}
CACHE_NAMES = COMMON_NAMES | {
    "k": "k_cache", "v": "v_cache", "k_new": "k", "v_new": "v", "leftpad": "cache_leftpad",
    "seqused_kv": "cache_seqlens", "seqlens_kv": "cache_seqlens",
}


def renamed(error: Error, names: dict[str, str]) -> Error:
    """The error with its field in the caller's words: "cu_seqlens_kv[1]" is "cu_seqlens_k[1]"."""
    word = re.split(r"\W", error.field, maxsplit=1)[0]
    return type(error)(names.get(word, word) + error.field[len(word) :], error.value, error.expected)


@overload
def int32(x: Tensor, name: str) -> Tensor: ...
@overload
def int32(x: None, name: str) -> None: ...
@overload
def int32(x: Tensor | None, name: str) -> Tensor | None: ...
def int32(x: Tensor | None, name: str) -> Tensor | None:
    """An index tensor as contiguous int32; other integer types are converted."""
    if x is None:
        return None
    if not isinstance(x, Tensor):
        raise Error(name, type(x).__name__, "an int32 tensor")
    if x.dtype == torch.int32 and x.is_contiguous():
        return x
    if x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool:
        raise Error(name, str(x.dtype), "int32")
    return x.to(torch.int32).contiguous()


def float32(x: Tensor | None) -> Tensor | None:
    """A tensor of scalars (ALiBi slopes, descales) as contiguous f32."""
    return None if x is None else x.detach().to(torch.float32).contiguous()


def lengths(x: int | Tensor | None, batch: int, whole: int, name: str, device: torch.device) -> Tensor:
    """Lengths of B sequences, int32: a tensor, one number for all, or None for the whole of each."""
    if isinstance(x, Tensor) and x.ndim > 0:
        return int32(x, name)
    return torch.full((batch,), whole if x is None else int(x), dtype=torch.int32, device=device)


def bounds(like: Tensor, longest_q: int | None, longest_k: int | None) -> dict[str, int]:
    """The longest lengths as options of a regard call, where tables lie on a GPU and no host call reads them."""
    given = {"max_seqlen_q": longest_q, "max_seqlen_kv": longest_k}
    return {name: int(longest) for name, longest in given.items() if longest is not None} if like.is_cuda else {}


def rotary_table(x: Tensor | None, q: Tensor) -> Tensor | None:
    """cos or sin in a type that regard takes beside q: f32 or q's own; any other becomes f32."""
    if x is None or x.dtype in (torch.float32, q.dtype):
        return maybe_contiguous(x)
    return x.to(torch.float32).contiguous()


def empty_rows_inf(lse: Tensor) -> Tensor:
    """flash-attn 2 reports +inf for a row without a visible key, regard -inf."""
    return torch.where(torch.isneginf(lse), math.inf, lse)


def alibi_in_lse(causal: bool, left: int, right: int, longest_k: int) -> bool:
    """Whether flash-attn 2 leaves slope * (p - leftpad) of ALiBi in the lse: causal, and no left window remains."""
    return (causal or right == 0) and not 0 <= left < longest_k


def alibi_term(
    slopes: Tensor, seqlen_q: int | Tensor, seqlens_k: Tensor, leftpad: Tensor | None, rows: int | None = None
) -> Tensor:
    """slope * (p - leftpad) of every row, f32: what flash-attn 2 adds to the lse of causal ALiBi.

    slopes (Hq) or (B, Hq). Dense: seqlen_q one number, result (B, Hq, Sq). Packed: seqlen_q is cu_seqlens_q (B + 1),
    rows is the number of rows in q, result (Hq, rows); rows that no sequence owns get 0.
    """
    begin = seqlens_k.to(torch.int64) - (0 if leftpad is None else leftpad.to(torch.int64))
    batch = begin.shape[0]
    slopes = slopes.to(torch.float32)
    slopes = slopes if slopes.ndim == 2 else slopes.expand(batch, -1)
    if isinstance(seqlen_q, int):
        p = torch.arange(seqlen_q, device=begin.device) + (begin - seqlen_q)[:, None]
        return slopes[:, :, None] * p[:, None, :]
    cu = seqlen_q.to(torch.int64)
    used = cu.diff()
    owner = torch.arange(batch, device=cu.device).repeat_interleave(used)
    p = torch.arange(owner.shape[0], device=cu.device) - cu[:-1][owner] + (begin - used)[owner]
    term = torch.zeros((slopes.shape[1], rows if rows is not None else owner.shape[0]), device=cu.device)
    term[:, : owner.shape[0]] = slopes[owner].T * p
    return term


def refuse(name: str, value: Any, expected: str) -> None:
    """Raises Error for an argument that is set but cannot be honoured; None, False and 0 are not set."""
    if value is not None and value is not False and not (isinstance(value, (int, float)) and value == 0):
        shown = getattr(value, "__name__", None) or type(value).__name__
        raise Error(name, shown, expected)


def softmax_d(dout: Tensor, out: Tensor, cu_seqlens_q: Tensor | None) -> Tensor:
    """rowsum(dout * out), f32, in the padded layout of flash-attn's backward.

    Dense (B, Hq, Sq rounded up to 128); packed (Hq, Tq + 128 B), where sequence b begins at cu_seqlens_q[b] + 128 b.
    """
    delta = (dout.float() * out.float()).sum(-1)
    if cu_seqlens_q is None:
        batch, seqlen, heads = delta.shape
        padded = torch.zeros((batch, heads, round_multiple(seqlen, 128)), device=delta.device)
        padded[:, :, :seqlen] = delta.transpose(1, 2)
        return padded
    cu = cu_seqlens_q.tolist()
    padded = torch.zeros((delta.shape[1], delta.shape[0] + 128 * (len(cu) - 1)), device=delta.device)
    for b, (begin, end) in enumerate(zip(cu, cu[1:])):
        padded[:, begin + 128 * b : end + 128 * b] = delta[begin:end].T
    return padded
