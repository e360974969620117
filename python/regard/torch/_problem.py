"""The one-line text of a call's problem (docs/problem.md), for logs, explain and error messages."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16",
           torch.float8_e4m3fn: "f8e4m3", torch.float8_e5m2: "f8e5m2"}
_DECODE_ROWS = 15  # a call whose queries are at most this many is a decode


def dtype_name(dtype: torch.dtype) -> str:
    """The problem word of a torch type; types that regard does not compute with keep torch's name."""
    return _DTYPES.get(dtype, str(dtype).removeprefix("torch."))


def problem_text(q: Tensor, k: Tensor, v: Tensor, call: dict[str, Any], packed: dict[str, Any] | None = None,
                 backward: bool = False) -> str:
    """The problem of `regard.attention(q, k, v, **call)`; `packed` are the arguments that make a call varlen."""
    words = [*_shape_words(q, k, packed or {}, backward), f"d={q.shape[-1]}"]
    if v.shape[-1] != q.shape[-1]:
        words.append(f"dv={v.shape[-1]}")
    words.append(f"dtype={dtype_name(q.dtype)}")
    if k.dtype != q.dtype:
        words.append(f"kv={dtype_name(k.dtype)}")
    return " ".join([*words, *_option_words(call)])


def _shape_words(q: Tensor, k: Tensor, packed: dict[str, Any], backward: bool) -> list[str]:
    paged = "block_table" in packed or "kv_indptr" in packed
    heads_first = packed.get("kv_layout") == "HND"
    heads_kv = k.shape[-3] if paged and heads_first else k.shape[-2]
    if "cu_seqlens_q" not in packed:
        batch, seq_q, seq_kv = q.shape[0], q.shape[1], k.shape[1]
    else:
        cu = packed["cu_seqlens_q"]
        batch, seq_q = len(cu) - 1, _longest(cu)
        lengths = packed.get("seqlens_kv")
        if lengths is not None:
            seq_kv = int(lengths.max()) if len(lengths) else 0
        else:
            seq_kv = _longest(packed["cu_seqlens_kv"]) if "cu_seqlens_kv" in packed else seq_q
    phase = "backward" if backward else "decode" if seq_q <= _DECODE_ROWS else "prefill"
    words = [phase, f"b={batch}", f"sq={seq_q}", f"skv={seq_kv}", f"hq={q.shape[-2]}", f"hkv={heads_kv}"]
    if paged:
        words.append(f"page={k.shape[-2] if heads_first else k.shape[-3]}")
    return [*words, "varlen"] if "cu_seqlens_q" in packed else words


def _longest(cu: Tensor) -> int:
    return int((cu[1:] - cu[:-1]).max()) if len(cu) > 1 else 0


def _option_words(call: dict[str, Any]) -> list[str]:
    words = ["causal"] if call.get("causal") else []
    if "window" in call:
        words.append("window=" + ",".join("" if side is None else str(side) for side in call["window"]))
    for name in ("chunk", "softcap", "scale", "dropout"):
        if call.get(name):
            words.append(f"{name}={call[name]:g}")
    flags = {"alibi_slopes": "alibi", "bias": "bias", "mask": "mask", "sink": "sink", "leftpad": "leftpad", "qv": "qv",
             "q_offset": "qoffset"}
    words.extend(word for name, word in flags.items() if call.get(name) is not None)
    if call.get("invariance", "full") != "full":
        words.append(f"invariance={call['invariance']}")
    return words
