"""Attention in plain NumPy and float64: the page docs/semantics.md, sequence by sequence, that the tests compare with."""

from __future__ import annotations

from typing import Any

import numpy as np


def visible(rows: int, keys: int, *, causal: bool = False, window: Any = None, chunk: int | None = None,
            leftpad: int = 0, q_offset: int | None = None) -> np.ndarray:
    """(rows, keys), True where query i sees key j."""
    p = np.arange(rows)[:, None] + (keys - rows if q_offset is None else q_offset)
    j = np.arange(keys)[None, :]
    seen = np.broadcast_to(j >= leftpad, (rows, keys)).copy()
    left, right = window or (None, None)
    if causal:
        seen &= j <= p
    if left is not None:
        seen &= j >= p - left
    if right is not None:
        seen &= j <= p + right
    if chunk is not None:
        begin = leftpad + np.floor_divide(p - leftpad, chunk) * chunk
        seen &= (j >= begin) & (j < begin + chunk)
    return seen


def sequence(q: Any, k: Any, v: Any, *, scale: float | None = None, softcap: float = 0.0, alibi_slopes: Any = None,
             bias: Any = None, mask: Any = None, sink: Any = None, qv: Any = None, leftpad: int = 0,
             q_offset: int | None = None, **seen: Any) -> tuple[np.ndarray, np.ndarray]:
    """out (Sq, Hq, Dv) and lse (Hq, Sq) of one sequence: q (Sq, Hq, D), k (Skv, Hkv, D), v (Skv, Hkv, Dv)."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    rows, heads, width = q.shape
    keys, group = k.shape[0], heads // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.einsum("ihd,jhd->hij", q, k)
    if qv is not None:
        scores += np.einsum("ihd,jhd->hij", np.asarray(qv, np.float64), v)
        width += v.shape[2]
    scores *= 1 / np.sqrt(width) if scale is None else scale
    if softcap > 0:
        scores = softcap * np.tanh(scores / softcap)
    if alibi_slopes is not None:
        p = np.arange(rows)[:, None] + (keys - rows if q_offset is None else q_offset)
        distance = np.abs(p - np.arange(keys)[None, :])
        scores = scores - np.asarray(alibi_slopes, np.float64)[:, None, None] * distance
    if bias is not None:
        scores = scores + np.asarray(bias, np.float64)
    allowed = visible(rows, keys, leftpad=leftpad, q_offset=q_offset, **seen)[None]
    if mask is not None:
        allowed = allowed & np.asarray(mask, bool)
    scores = np.where(allowed, scores, -np.inf)
    extra = -np.inf if sink is None else np.asarray(sink, np.float64)[:, None]
    top = np.maximum(scores.max(-1, initial=-np.inf), extra)
    safe = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(scores - safe[..., None])
    total = weights.sum(-1) + np.exp(extra - safe)
    with np.errstate(divide="ignore"):
        lse = np.where(total > 0, np.log(total) + safe, -np.inf)
    weights = np.divide(weights, total[..., None], out=np.zeros_like(weights), where=total[..., None] > 0)
    return np.einsum("hij,jhd->ihd", weights, v), lse


def dense(q: Any, k: Any, v: Any, *, bias: Any = None, mask: Any = None, qv: Any = None, leftpad: Any = None,
          q_offset: Any = None, seqused_q: Any = None, seqused_kv: Any = None,
          **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """out (B, Sq, Hq, Dv) and lse (B, Hq, Sq); rows past seqused_q are 0 and -inf."""
    batch, rows, heads, _ = q.shape
    out = np.zeros((batch, rows, heads, v.shape[3]))
    lse = np.full((batch, heads, rows), -np.inf)

    def part(table: Any, b: int, used_q: int, used_k: int) -> Any:
        if table is None:
            return None
        return np.broadcast_to(table, (batch, heads, rows, k.shape[1]))[b, :, :used_q, :used_k]

    for b in range(batch):
        used_q = rows if seqused_q is None else seqused_q[b]
        used_k = k.shape[1] if seqused_kv is None else seqused_kv[b]
        out[b, :used_q], lse[b, :, :used_q] = sequence(
            q[b, :used_q], k[b, :used_k], v[b, :used_k],
            bias=part(bias, b, used_q, used_k), mask=part(mask, b, used_q, used_k),
            qv=None if qv is None else qv[b, :used_q],
            leftpad=0 if leftpad is None else leftpad[b],
            q_offset=None if q_offset is None else q_offset[b], **options)
    return out, lse


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def error(got: Any, want: np.ndarray) -> float:
    """Largest difference; infinities must be in the same places."""
    got = np.asarray(got, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    assert not np.isnan(got).any()
    assert (np.isfinite(got) == np.isfinite(want)).all()
    finite = np.isfinite(want)
    return float(np.abs(got[finite] - want[finite]).max(initial=0.0))
