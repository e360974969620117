"""The options that every call shares, in the order in which the custom ops take them.

A call's keyword arguments become one tuple (`pack`), the ops carry that tuple through torch's dispatcher, and the
kernels turn it back into keyword arguments of `regard.attention` (`to_call`). The tuple is the only place where this
order matters. A call that does not go through the dispatcher has `plain_call` instead of both.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from ._error import error

# Name and schema type. Tensors come first; `rng` is int64 (2): seed and offset of the dropout mask.
OPTIONS: tuple[tuple[str, str], ...] = (
    ("alibi_slopes", "Tensor?"),
    ("bias", "Tensor?"),
    ("mask", "Tensor?"),
    ("sink", "Tensor?"),
    ("qv", "Tensor?"),
    ("leftpad", "Tensor?"),
    ("q_offset", "Tensor?"),
    ("seqused_q", "Tensor?"),
    ("seqused_kv", "Tensor?"),
    ("q_descale", "Tensor?"),
    ("k_descale", "Tensor?"),
    ("v_descale", "Tensor?"),
    ("rng", "Tensor?"),
    ("scale", "float?"),
    ("causal", "bool"),
    ("window_left", "SymInt?"),
    ("window_right", "SymInt?"),
    ("chunk", "SymInt?"),
    ("softcap", "float"),
    ("q_offset_all", "SymInt?"),
    ("dropout", "float"),
    ("invariance", "str"),
    ("kernel", "str?"),
    ("max_seqlen_q", "SymInt?"),
    ("max_seqlen_kv", "SymInt?"),
)
NAMES: tuple[str, ...] = tuple(name for name, _ in OPTIONS)
SCHEMA: str = ", ".join(f"{kind} {name}" for name, kind in OPTIONS)
COUNT: int = len(OPTIONS)
TENSORS: int = sum(kind.startswith("Tensor") for _, kind in OPTIONS)

_U64 = (1 << 64) - 1


def draw_rng() -> Tensor:
    """Seed and offset of a dropout mask, int64 (2), from torch's default generator: manual_seed repeats them."""
    return torch.randint(0, 1 << 62, (2,), dtype=torch.int64, device="cpu")


def rng_state(dropout: float, seed: int | None, offset: int | None) -> Tensor | None:
    """The `rng` tensor of a call: None without dropout, the given seed and offset, or a fresh draw."""
    if not dropout:
        return None
    if seed is None and offset is None:
        return draw_rng()
    words = [int(seed or 0) & _U64, int(offset or 0) & _U64]
    return torch.tensor([w - (1 << 64) if w >> 63 else w for w in words], dtype=torch.int64, device="cpu")


class Options(TypedDict, total=False):
    """What attention, varlen_attention and with_kvcache take besides their tensors; docs/semantics.md has the meaning.

    alibi_slopes f32 (Hq) or (B, Hq); bias and mask (B | 1, Hq | 1, Sq | 1, Skv | 1); sink (Hq); qv as q with Dv;
    leftpad, seqused_q, seqused_kv int32 (B); q_offset int32 (B), or one number for all; descales f32 (B, Hkv);
    max_seqlen_q and max_seqlen_kv bound lengths that lie on a GPU, where no call reads them.
    """

    scale: float | None
    causal: bool
    window: Sequence[int | None] | None
    chunk: int | None
    softcap: float
    alibi_slopes: Tensor | None
    bias: Tensor | None
    mask: Tensor | None
    sink: Tensor | None
    qv: Tensor | None
    leftpad: Tensor | None
    q_offset: Tensor | int | None
    seqused_q: Tensor | None
    seqused_kv: Tensor | None
    q_descale: Tensor | None
    k_descale: Tensor | None
    v_descale: Tensor | None
    dropout: float
    seed: int | None
    offset: int | None
    invariance: str
    kernel: str | Sequence[str] | None
    max_seqlen_q: int | None
    max_seqlen_kv: int | None


def pack(*, scale: float | None = None, causal: bool = False,
         window: Sequence[int | None] | None = (None, None), chunk: int | None = None, softcap: float = 0.0,
         alibi_slopes: Tensor | None = None, bias: Tensor | None = None, mask: Tensor | None = None,
         sink: Tensor | None = None, qv: Tensor | None = None, leftpad: Tensor | None = None,
         q_offset: Tensor | int | None = None, seqused_q: Tensor | None = None, seqused_kv: Tensor | None = None,
         q_descale: Tensor | None = None, k_descale: Tensor | None = None, v_descale: Tensor | None = None,
         dropout: float = 0.0, seed: int | None = None, offset: int | None = None, invariance: str = "full",
         kernel: str | Sequence[str] | None = None, max_seqlen_q: int | None = None,
         max_seqlen_kv: int | None = None) -> tuple[Any, ...]:
    """The keyword arguments of a call as the tuple that the ops take. Draws the dropout seed where none is given."""
    left, right = (None, None) if window is None else _window(window)
    per_sequence = isinstance(q_offset, Tensor)
    if kernel is not None and not isinstance(kernel, str):
        kernel = ",".join(kernel)
    return (alibi_slopes, bias, mask, sink, qv, leftpad, q_offset if per_sequence else None, seqused_q, seqused_kv,
            q_descale, k_descale, v_descale, rng_state(dropout, seed, offset), None if scale is None else float(scale),
            bool(causal), left, right, chunk, float(softcap), None if per_sequence else q_offset, float(dropout),
            invariance, kernel, max_seqlen_q, max_seqlen_kv)


def _window(window: Sequence[int | None]) -> tuple[int | None, int | None]:
    if isinstance(window, (str, bytes)) or len(window) != 2:
        raise error("window", window, "two sides, each a number of keys or None")
    return window[0], window[1]


def to_call(values: Sequence[Any]) -> dict[str, Any]:
    """The packed tuple as keyword arguments of `regard.attention`; only what differs from the default."""
    given = {name: value for name, value in zip(NAMES, values) if value is not None}
    call: dict[str, Any] = {}
    rng = given.pop("rng", None)
    if rng is not None:
        seed, offset = rng.tolist()
        call["seed"], call["offset"] = seed & _U64, offset & _U64
    left, right = given.pop("window_left", None), given.pop("window_right", None)
    if left is not None or right is not None:
        call["window"] = (left, right)
    if "q_offset_all" in given:
        given["q_offset"] = given.pop("q_offset_all")
    if "kernel" in given:
        given["kernel"] = given["kernel"].split(",")
    for name, default in (("causal", False), ("softcap", 0.0), ("dropout", 0.0), ("invariance", "full")):
        if given[name] == default:
            del given[name]
    call.update((name, rows(value) if isinstance(value, Tensor) else value) for name, value in given.items())
    return call


def plain_call(options: Options) -> dict[str, Any]:
    """The caller's options as keyword arguments of `regard.attention` without the detour of `pack` and `to_call`."""
    call: dict[str, Any] = {name: rows(value) if isinstance(value, Tensor) else value
                            for name, value in options.items() if value is not None}
    rng = rng_state(call.get("dropout", 0.0), call.get("seed"), call.get("offset"))
    if rng is not None:
        call["seed"], call["offset"] = (word & _U64 for word in rng.tolist())
    if isinstance(call.get("kernel"), str):
        call["kernel"] = call["kernel"].split(",")
    return call


def rows(t: Tensor) -> Tensor:
    """`t` with a contiguous last dim: itself, or a copy."""
    return t if t.dim() == 0 or t.stride(-1) == 1 else t.clone(memory_format=torch.contiguous_format)
