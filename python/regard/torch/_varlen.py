"""torch.nn.attention.varlen in regard's terms: varlen_attn in the spelling of torch 2.10 and in the later one."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from . import _backends
from ._api import varlen_attention
from ._error import error

_Result = Tensor | tuple[Tensor, Tensor]


class AuxRequest(NamedTuple):
    """What varlen_attn returns besides out: `lse`, the log-sum-exp. torch's own AuxRequest serves as well."""

    lse: bool = False


def varlen_attn(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor | None, max_q: int,
                max_k: int, is_causal: bool = False, return_aux: Any = None, *, scale: float | None = None,
                window_size: Sequence[int] = (-1, -1), enable_gqa: bool = False, seqused_k: Tensor | None = None,
                block_table: Tensor | None = None, num_splits: int | None = None) -> _Result:
    """torch.nn.attention.varlen.varlen_attn, computed by regard, differentiable where k and v are packed.

    query (Tq, Hq, D); key, value (Tk, Hkv, D), or with block_table page pools (pages, page_size, Hkv, D);
    cu_seq_q, cu_seq_k int32 (N + 1). Causal is `is_causal=True` (2.10) or window_size (-1, 0) (later), a tuple or a
    list, aligned at the bottom right; a negative window side is open. seqused_k (N) shortens the keys; block_table
    (N, max_pages) needs it. max_q and max_k bound the lengths where they lie on a GPU; num_splits is accepted and not
    needed: results do not depend on splits.

    Returns out (Tq, Hq, D), and with return_aux.lse also lse, f32 (Hq, Tq). Raises regard.Error.
    """
    return _run(None, query, key, value, cu_seq_q, cu_seq_k, (max_q, max_k), is_causal, return_aux, scale, window_size,
                enable_gqa, seqused_k, block_table)


def varlen_attn_out(out: Tensor, query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor,
                    cu_seq_k: Tensor | None, max_q: int, max_k: int, is_causal: bool = False, return_aux: Any = None,
                    *, scale: float | None = None, window_size: Sequence[int] = (-1, -1), enable_gqa: bool = False,
                    seqused_k: Tensor | None = None, block_table: Tensor | None = None,
                    num_splits: int | None = None) -> _Result:
    """varlen_attn into `out` (Tq, Hq, D), which is returned, or (out, lse); no gradient is recorded."""
    return _run(out, query, key, value, cu_seq_q, cu_seq_k, (max_q, max_k), is_causal, return_aux, scale, window_size,
                enable_gqa, seqused_k, block_table)


def _run(out: Tensor | None, query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor | None,
         longest: tuple[int, int], is_causal: bool, return_aux: Any, scale: float | None, window_size: Sequence[int],
         enable_gqa: bool,
         seqused_k: Tensor | None, block_table: Tensor | None) -> _Result:
    heads_q, heads_kv = query.shape[1], key.shape[-2]
    if not enable_gqa and heads_q != heads_kv:
        raise error("enable_gqa", False, f"True where query has {heads_q} heads and key {heads_kv}")
    if len(window_size) != 2:
        raise error("window_size", window_size, "two sides, (left, right)")
    if block_table is not None and seqused_k is None:
        raise error("seqused_k", None, "the number of keys of each sequence, which block_table needs")
    if block_table is None and cu_seq_k is None:
        raise error("cu_seq_k", None, "int32 (N + 1) where there is no block_table")
    left, right = (None if side < 0 else side for side in window_size)
    want_lse = return_aux is not None and bool(return_aux.lse)
    bounds: Any = {"max_seqlen_q": longest[0], "max_seqlen_kv": longest[1]} if query.is_cuda else {}
    paged: dict[str, Any] = {"block_table": block_table, "seqlens_kv": seqused_k} if block_table is not None else {}
    result: _Result = varlen_attention(query, key, value, cu_seq_q, None if paged else cu_seq_k, scale=scale,
                            causal=bool(is_causal), window=(left, right), seqused_kv=None if paged else seqused_k,
                            out=out, return_lse=want_lse, kernel=_backends.current, **bounds, **paged)
    return result
