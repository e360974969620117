"""The autograd functions of flash-attn 3 by their own names; .apply takes the public function's arguments by position.

They are thin: the differentiable work is regard.flash_attn._fa3.Attention's, whose lse is differentiable too.
"""

from __future__ import annotations

from typing import Any

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
    def apply(q, k, v, softmax_scale, causal, qv=None, q_descale=None, k_descale=None, v_descale=None,
              window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False,
              sm_margin=0, return_softmax=False, s_aux=None):
        return _finish(
            q, k, v, s_aux, return_softmax, softmax_scale=softmax_scale, causal=causal, qv=qv, q_descale=q_descale,
            k_descale=k_descale, v_descale=v_descale, window_size=window_size, chunk=attention_chunk, softcap=softcap,
        )


class FlashAttnQKVPackedFunc:
    """flash_attn_qkvpacked_func."""

    @staticmethod
    def apply(qkv, softmax_scale, causal, q_descale=None, k_descale=None, v_descale=None, window_size=(-1, -1),
              attention_chunk=0, softcap=0.0, deterministic=False, num_heads_q=None, sm_margin=0, return_softmax=False):
        q, k, v = _split(qkv, num_heads_q)
        return _finish(
            q, k, v, None, return_softmax, softmax_scale=softmax_scale, causal=causal, q_descale=q_descale,
            k_descale=k_descale, v_descale=v_descale, window_size=window_size, chunk=attention_chunk, softcap=softcap,
        )


class FlashAttnVarlenFunc:
    """flash_attn_varlen_func; seqused_q and seqused_k come before the maxima here."""

    @staticmethod
    def apply(q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, softmax_scale,
              causal, qv=None, q_descale=None, k_descale=None, v_descale=None, window_size=(-1, -1), attention_chunk=0,
              softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, sm_margin=0, return_softmax=False,
              s_aux=None):
        return _finish(
            q, k, v, s_aux, return_softmax, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q,
            seqused_k=seqused_k, softmax_scale=softmax_scale, causal=causal, qv=qv, q_descale=q_descale,
            k_descale=k_descale, v_descale=v_descale, window_size=window_size, chunk=attention_chunk, softcap=softcap,
        )


def _split(qkv: Tensor, num_heads_q: int | None) -> tuple[Tensor, Tensor, Tensor]:
    if qkv.ndim == 5 and qkv.shape[2] == 3:
        return qkv.unbind(2)  # type: ignore[return-value]
    if qkv.ndim != 4:
        raise Error("qkv", str(tuple(qkv.shape)), "shape (B, S, 3, H, D) or (B, S, Hq + 2 Hkv, D)")
    if num_heads_q is None:
        raise Error("num_heads_q", "None", "the number of query heads in qkv (B, S, Hq + 2 Hkv, D)")
    heads_kv, odd = divmod(qkv.shape[2] - num_heads_q, 2)
    if odd or heads_kv <= 0:
        raise Error("num_heads_q", str(num_heads_q), f"Hq of the {qkv.shape[2]} = Hq + 2 Hkv heads of qkv")
    return qkv.split([num_heads_q, heads_kv, heads_kv], dim=2)  # type: ignore[return-value]
