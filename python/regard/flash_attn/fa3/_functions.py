"""The autograd functions of flash-attn 3 by their own names; .apply takes the public function's arguments by position.

They are thin: the differentiable work is regard.flash_attn._fa3.Attention's, whose lse is differentiable too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import Error
from regard.flash_attn import _dialect, _fa3

Maybe = Tensor | None


def _finish(q: Tensor, k: Tensor, v: Tensor, s_aux: Maybe, return_softmax: bool, **options: Any) -> Any:
    sink = _fa3.sink_for(q, s_aux)
    left, right = _dialect.window_pair(options.pop("window_size"))
    call = _fa3.build(left=left, right=right, sink=sink, **options)
    out, lse = _fa3.attend(q, k, v, sink, call, return_softmax)
    return (out, _fa3.lse_out(lse, k, call)) if return_softmax else out


class FlashAttnFunc:
    """flash_attn_func."""

    @staticmethod
    def apply(
        q: Any, k: Any, v: Any, softmax_scale: Any, causal: Any, qv: Any = None, q_descale: Any = None,
        k_descale: Any = None, v_descale: Any = None, window_size: Any = (-1, -1), attention_chunk: Any = 0,
        softcap: Any = 0.0, num_splits: Any = 1, pack_gqa: Any = None, deterministic: Any = False, sm_margin: Any = 0,
        return_softmax: Any = False, s_aux: Any = None,
    ) -> Any:
        return _finish(
            q, k, v, s_aux, return_softmax, softmax_scale=softmax_scale, causal=causal, qv=qv, q_descale=q_descale,
            k_descale=k_descale, v_descale=v_descale, window_size=window_size, chunk=attention_chunk, softcap=softcap,
        )


class FlashAttnQKVPackedFunc:
    """flash_attn_qkvpacked_func."""

    @staticmethod
    def apply(
        qkv: Any, softmax_scale: Any, causal: Any, q_descale: Any = None, k_descale: Any = None, v_descale: Any = None,
        window_size: Any = (-1, -1), attention_chunk: Any = 0, softcap: Any = 0.0, deterministic: Any = False,
        num_heads_q: Any = None, sm_margin: Any = 0, return_softmax: Any = False,
    ) -> Any:
        q, k, v = _split(qkv, num_heads_q)
        return _finish(
            q, k, v, None, return_softmax, softmax_scale=softmax_scale, causal=causal, q_descale=q_descale,
            k_descale=k_descale, v_descale=v_descale, window_size=window_size, chunk=attention_chunk, softcap=softcap,
        )


class FlashAttnVarlenFunc:
    """flash_attn_varlen_func; seqused_q and seqused_k come before the maxima here."""

    @staticmethod
    def apply(
        q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, seqused_q: Any, seqused_k: Any,
        max_seqlen_q: Any, max_seqlen_k: Any, softmax_scale: Any, causal: Any, qv: Any = None, q_descale: Any = None,
        k_descale: Any = None, v_descale: Any = None, window_size: Any = (-1, -1), attention_chunk: Any = 0,
        softcap: Any = 0.0, num_splits: Any = 1, pack_gqa: Any = None, deterministic: Any = False, sm_margin: Any = 0,
        return_softmax: Any = False, s_aux: Any = None,
    ) -> Any:
        return _finish(
            q, k, v, s_aux, return_softmax, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q,
            seqused_k=seqused_k, max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k, softmax_scale=softmax_scale,
            causal=causal, qv=qv, q_descale=q_descale,
            k_descale=k_descale, v_descale=v_descale, window_size=window_size, chunk=attention_chunk, softcap=softcap,
        )


def _split(qkv: Tensor, num_heads_q: int | None) -> tuple[Tensor, Tensor, Tensor]:
    if qkv.ndim == 5 and qkv.shape[2] == 3:
        q, k, v = qkv.unbind(2)
        return q, k, v
    if qkv.ndim != 4:
        raise Error("qkv", str(tuple(qkv.shape)), "shape (B, S, 3, H, D) or (B, S, Hq + 2 Hkv, D)")
    if num_heads_q is None:
        raise Error("num_heads_q", "None", "the number of query heads in qkv (B, S, Hq + 2 Hkv, D)")
    heads_kv, odd = divmod(qkv.shape[2] - num_heads_q, 2)
    if odd or heads_kv <= 0:
        raise Error("num_heads_q", str(num_heads_q), f"Hq of the {qkv.shape[2]} = Hq + 2 Hkv heads of qkv")
    q, k, v = torch.split(qkv, [num_heads_q, heads_kv, heads_kv], dim=2)
    return q, k, v
