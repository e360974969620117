"""flash-attn 2 calls: the arguments of its functions as a regard call, and regard's results in its dialect.

The dialect differs in the log-sum-exp alone: +inf for a row without a visible key, and for causal ALiBi a term
slope * (p - leftpad) that regard does not have. It is put on after the forward pass and taken off before the backward;
inside autograd only regard's own lse is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn import _call, _dialect, _dropout
from regard.flash_attn._call import Call


@dataclass(slots=True)
class Fa2Call:
    """A regard call with what its translation back needs.

    longest_q, longest_k: lengths as the caller stated them; they size S_dmask and clamp the left window in the lse
    rule.
    alibi_in_lse: whether this call's lse carries the ALiBi term.
    """

    call: Call
    longest_q: int
    longest_k: int
    alibi_in_lse: bool
    rng_state: Tensor | None  # int64 (2); None without dropout

    def lengths_k(self, q: Tensor, k: Tensor) -> Tensor:
        """Keys of every sequence, int32 (B)."""
        call = self.call
        given: Tensor | None = call.options.get("seqused_kv", call.paged.get("seqlens_kv"))
        if given is not None:
            return given
        if call.cu_seqlens_kv is not None:
            return call.cu_seqlens_kv.diff()
        return torch.full((q.shape[0],), k.shape[1], dtype=torch.int32, device=q.device)

    def lse_out(self, lse: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """regard's lse in flash-attn's dialect."""
        if self.alibi_in_lse:
            lse = lse + self._alibi_term(q, k)
        return _dialect.empty_rows_inf(lse)

    def lse_in(self, lse: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """A caller's lse, perhaps merged over blocks of keys, in regard's terms.

        +inf means that the row saw no key in any block. It becomes the largest float: every probability is then 0.
        """
        lse = lse.to(torch.float32)
        if self.alibi_in_lse:
            lse = lse - self._alibi_term(q, k)
        return torch.where(torch.isposinf(lse), torch.finfo(torch.float32).max, lse)

    def _alibi_term(self, q: Tensor, k: Tensor) -> Tensor:
        options, cu = self.call.options, self.call.cu_seqlens_q
        rows = {"seqlen_q": q.shape[1]} if cu is None else {"seqlen_q": cu, "rows": q.shape[0]}
        return _dialect.alibi_term(
            options["alibi_slopes"], seqlens_k=self.lengths_k(q, k), leftpad=options.get("leftpad"), **rows
        )

    def probabilities(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """S_dmask: (B, Hq, longest_q, longest_k, each rounded up to 128), in q's type; negative where dropped.

        Keys count from the first one behind leftpad, as flash-attn's do.
        """
        probs, kept = _call.maps(q, k, v, self.call)
        signed = torch.where(kept, probs, -probs)
        cu_q = self.call.cu_seqlens_q
        lengths_q = [q.shape[1]] * q.shape[0] if cu_q is None else cu_q.diff().tolist()
        pads = self.call.options.get("leftpad")
        rows, keys = (_dialect.round_multiple(n, 128) for n in (self.longest_q, self.longest_k))
        result = torch.zeros((*probs.shape[:2], rows, keys), dtype=q.dtype, device=q.device)
        for b, (n, end) in enumerate(zip(lengths_q, self.lengths_k(q, k).tolist())):
            begin = 0 if pads is None else int(pads[b])
            if n > rows or end - begin > keys:
                raise Error("max_seqlen_q, max_seqlen_k", f"({self.longest_q}, {self.longest_k})",
                            f"at least the lengths of sequence {b}, ({n}, {end})")
            result[b, :, :n, : end - begin] = signed[b, :, :n, begin:end]
        return result


def dense(
    q: Tensor, k: Tensor, dropout_p: float, softmax_scale: float | None, causal: bool, left: int, right: int,
    softcap: float, alibi_slopes: Tensor | None, rng_state: Tensor | None = None,
) -> Fa2Call:
    """The call of q (B, Sq, Hq, D) against k (B, Skv, Hkv, D)."""
    return _build(
        Call(_dialect.mask_options(softmax_scale, causal, left, right, softcap)),
        q.shape[1], k.shape[1], dropout_p, causal, left, right, alibi_slopes, rng_state,
    )


def varlen(
    q: Tensor, k: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor | None, max_seqlen_q: int, max_seqlen_k: int,
    dropout_p: float, softmax_scale: float | None, causal: bool, left: int, right: int, softcap: float,
    alibi_slopes: Tensor | None, rng_state: Tensor | None = None, block_table: Tensor | None = None,
    leftpad_k: Tensor | None = None, seqused_k: Tensor | None = None,
) -> Fa2Call:
    """The call of packed q (Tq, Hq, D) against packed k (Tk, Hkv, D), or against pages (n, page, Hkv, D)."""
    options = _dialect.mask_options(softmax_scale, causal, left, right, softcap)
    options.update(_dialect.bounds(q, max_seqlen_q, max_seqlen_k))
    cu_q, cu_k = _dialect.int32(cu_seqlens_q, "cu_seqlens_q"), _dialect.int32(cu_seqlens_k, "cu_seqlens_k")
    seqused_k = _dialect.int32(seqused_k, "seqused_k")
    if leftpad_k is not None:
        options["leftpad"] = _dialect.int32(leftpad_k, "leftpad_k")
    paged: dict[str, Any] = {}
    if block_table is not None:
        # With pages, cu_seqlens_k tells lengths and nothing else.
        seqlens = seqused_k if seqused_k is not None else cu_k.diff() if cu_k is not None else None
        if seqlens is None:
            raise Error("cu_seqlens_k", "None", "the lengths of the sequences, (B + 1) int32")
        paged, cu_k = {"block_table": _dialect.int32(block_table, "block_table"), "seqlens_kv": seqlens}, None
    elif seqused_k is not None:
        options["seqused_kv"] = seqused_k
    return _build(
        Call(options, cu_q, cu_k, paged),
        int(max_seqlen_q), int(max_seqlen_k), dropout_p, causal, left, right, alibi_slopes, rng_state,
    )


def _build(
    call: Call, longest_q: int, longest_k: int, dropout_p: float, causal: bool, left: int, right: int,
    alibi_slopes: Tensor | None, rng_state: Tensor | None,
) -> Fa2Call:
    if dropout_p:
        if rng_state is None:
            rng_state = _dropout.draw_rng_state()
        call.options.update(_dropout.dropout_options(dropout_p, rng_state))
    shifted = False
    if alibi_slopes is not None:
        call.options["alibi_slopes"] = _dialect.float32(alibi_slopes)
        shifted = _dialect.alibi_in_lse(causal, left, right, longest_k)
    return Fa2Call(call, longest_q, longest_k, shifted, rng_state)


def run(
    q: Tensor, k: Tensor, v: Tensor, call: Fa2Call, return_softmax: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """out, regard's lse, S_dmask (shape (0,) unless return_softmax and there is dropout)."""
    wants_probabilities = return_softmax and "dropout" in call.call.options
    if wants_probabilities:
        batch = q.shape[0] if call.call.cu_seqlens_q is None else call.call.cu_seqlens_q.shape[0] - 1
        _dropout.check_size(batch, q.shape[-2], call.longest_q, call.longest_k)
    q, k, v = (_dialect.maybe_contiguous(x) for x in (q, k, v))
    out, lse = _call.forward(q, k, v, call.call, return_lse=True)
    probabilities = call.probabilities(q, k, v) if wants_probabilities else q.new_empty(0)
    return out, lse, probabilities


def result(q: Tensor, k: Tensor, v: Tensor, call: Fa2Call, return_softmax: bool) -> Any:
    """What a public function returns where no gradient is wanted: out, or (out, softmax_lse, S_dmask)."""
    if return_softmax:
        out, lse, probabilities = run(q, k, v, call, True)
        return out, call.lse_out(lse, q, k), probabilities
    unstrided = _dialect.maybe_contiguous
    return _call.forward(unstrided(q), unstrided(k), unstrided(v), call.call, return_lse=False)[0]
