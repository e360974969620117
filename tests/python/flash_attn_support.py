"""Attention in plain torch and f64, as docs/semantics.md defines it: what the tests of regard.flash_attn compare with.

One sequence at a time, written as the page reads; differentiable in q, k, v and sink. lse is regard's: natural log,
-inf for an empty row.
"""

from __future__ import annotations

import math

import torch

TOLERANCE = {torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def attend(
    q, k, v, *, scale=None, causal=False, window=(-1, -1), chunk=0, softcap=0.0, slopes=None, sink=None, qv=None,
    leftpad=0, keep=None, dropout=0.0,
):
    """out (Sq, Hq, Dv), lse (Hq, Sq) of q (Sq, Hq, D), k (Skv, Hkv, D), v (Skv, Hkv, Dv); keep (Hq, Sq, Skv)."""
    q, k, v = q.double(), k.double(), v.double()
    (rows, heads, dim), keys = q.shape, k.shape[0]
    k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k)
    if qv is not None:
        scores = scores + torch.einsum("ihd,jhd->hij", qv.double(), v)
        dim += qv.shape[-1]
    scores = scores * (1 / math.sqrt(dim) if scale is None else scale)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    p, j = torch.arange(rows)[:, None] + keys - rows, torch.arange(keys)
    if slopes is not None:
        scores = scores - slopes.double()[:, None, None] * (p - j).abs()
    visible = (j >= leftpad).expand(rows, keys).clone()
    if causal:
        visible &= j <= p
    if window[0] >= 0:
        visible &= j >= p - window[0]
    if window[1] >= 0 and not causal:
        visible &= j <= p + window[1]
    if chunk > 0:
        first = leftpad + torch.div(p - leftpad, chunk, rounding_mode="floor") * chunk
        visible &= (j >= first) & (j < first + chunk)
    weights = torch.where(visible, torch.exp(torch.where(visible, scores, 0.0)), 0.0)
    total = weights.sum(-1)
    if sink is not None:
        total = total + torch.exp(sink.double())[:, None]
    empty = total == 0
    safe = torch.where(empty, 1.0, total)
    lse = torch.where(empty, -math.inf, torch.log(safe))
    probs = weights / safe[:, :, None]
    if keep is not None:
        probs = torch.where(keep, probs / (1 - dropout) if dropout < 1 else 0.0, 0.0)
    return torch.einsum("hij,jhd->ihd", probs, v), lse


def per_sequence(value, b):
    """Entry b of an option that sequences may have each of their own."""
    return value[b] if isinstance(value, (list, tuple)) and not _is_window(value) else value


def _is_window(value):
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(x, int) for x in value)


def dense(q, k, v, *, slopes=None, qv=None, keep=None, used_q=None, used_k=None, **options):
    """attend over a batch: out (B, Sq, Hq, Dv), lse (B, Hq, Sq). used_q, used_k, leftpad: lists of lengths."""
    outs, lses = [], []
    for b in range(q.shape[0]):
        n = q.shape[1] if used_q is None else used_q[b]
        m = k.shape[1] if used_k is None else used_k[b]
        own = {name: per_sequence(value, b) for name, value in options.items()}
        out, lse = attend(
            q[b, :n], k[b, :m], v[b, :m], slopes=slopes[b] if slopes is not None and slopes.ndim == 2 else slopes,
            qv=None if qv is None else qv[b, :n], keep=None if keep is None else keep[b], **own,
        )
        rest = q.shape[1] - n
        outs.append(torch.cat((out, out.new_zeros(rest, *out.shape[1:]))))
        lses.append(torch.cat((lse, lse.new_full((lse.shape[0], rest), -math.inf)), 1))
    return torch.stack(outs), torch.stack(lses)


def packed(q, k, v, cu_q, cu_k, *, slopes=None, qv=None, used_q=None, used_k=None, **options):
    """attend over packed sequences: out (Tq, Hq, Dv), lse (Hq, Tq)."""
    cu_q, cu_k = (c.tolist() for c in (cu_q, cu_k))
    outs, lses = [], []
    for b in range(len(cu_q) - 1):
        rows = cu_q[b + 1] - cu_q[b]
        n = rows if used_q is None else used_q[b]
        m = cu_k[b + 1] - cu_k[b] if used_k is None else used_k[b]
        own = {name: per_sequence(value, b) for name, value in options.items()}
        at = slice(cu_q[b], cu_q[b] + n)
        out, lse = attend(
            q[at], k[cu_k[b] : cu_k[b] + m], v[cu_k[b] : cu_k[b] + m],
            slopes=slopes[b] if slopes is not None and slopes.ndim == 2 else slopes,
            qv=None if qv is None else qv[at], **own,
        )
        outs.append(torch.cat((out, out.new_zeros(rows - n, *out.shape[1:]))))
        lses.append(torch.cat((lse, lse.new_full((lse.shape[0], rows - n), -math.inf)), 1))
    return torch.cat(outs), torch.cat(lses, 1)


def rotate(x, cos, sin, positions, interleaved):
    """x (..., T, H, D) turned by the angles of positions (..., T), f64."""
    x, half = x.double().clone(), cos.shape[1]
    c, s = cos.double()[positions][..., None, :], sin.double()[positions][..., None, :]
    pairs = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    a, b = x[..., pairs[0]].clone(), x[..., pairs[1]].clone()
    x[..., pairs[0]], x[..., pairs[1]] = a * c - b * s, a * s + b * c
    return x


def table(positions, half, dtype=torch.float32):
    """cos and sin of rotary embedding."""
    angles = torch.outer(torch.arange(positions).float(), 100.0 ** (-torch.arange(half) / half))
    return angles.cos().to(dtype), angles.sin().to(dtype)


def cumulative(lengths):
    """cu_seqlens of lengths."""
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


def paged_copy(k, lengths, page_size, seed=0):
    """k (B, S, H, D) scattered over pages in random order; NaN wherever no key is. Returns pages and block table."""
    per_row = -(-k.shape[1] // page_size)
    order = torch.randperm(k.shape[0] * per_row + 2, generator=torch.Generator().manual_seed(seed))
    table = order[: k.shape[0] * per_row].view(k.shape[0], per_row).to(torch.int32)
    pages = torch.full((len(order), page_size, *k.shape[2:]), torch.nan, dtype=k.dtype)
    for b, length in enumerate(lengths):
        for j in range(length):
            pages[table[b, j // page_size], j % page_size] = k[b, j]
    return pages, table


def fa2_lse(lse):
    """regard's lse with flash-attn 2's +inf for empty rows."""
    return torch.where(torch.isneginf(lse), math.inf, lse)


def randn(*shape, dtype=torch.float32, grad=False, seed=0):
    """Standard normal numbers that depend on shape and seed alone."""
    generator = torch.Generator().manual_seed(seed * 1009 + sum(n * 31**i for i, n in enumerate(shape)))
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_(grad)


def assert_close(actual, expected, dtype=torch.float32, factor=1.0):
    """actual is expected (f64) up to rounding of dtype; infinities agree; a NaN fails."""
    tolerance = TOLERANCE[dtype] * factor
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)


def gradients_of(loss, *tensors):
    """Gradients of a scalar, zeros where a tensor plays no part."""
    grads = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, tensors)]
