"""The signatures of flash-attn 2.8.4, 3 and 4, as data: names, order and defaults must be theirs, literally.

Readers such as transformers look at inspect.signature to see what is supported, so wrappers with **kwargs would not do.
"""

from __future__ import annotations

import inspect

import pytest

torch = pytest.importorskip("torch")

from regard import flash_attn  # noqa: E402
from regard.flash_attn import bert_padding, cute, flash_attn_interface  # noqa: E402
from regard.flash_attn.fa3 import flash_attn_interface as fa3  # noqa: E402
from regard.flash_attn.layers import rotary  # noqa: E402
from regard.flash_attn.ops.triton import rotary as triton_rotary  # noqa: E402

TAIL = (
    "dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, "
    "deterministic=False, return_attn_probs=False"
)
VARLEN = "cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k"
GRADIENTS = "dout, q, k, v, out, softmax_lse, dq, dk, dv"
BACKWARD = (
    "dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes, deterministic, "
    "rng_state=None"
)

VERSION_2 = {
    "flash_attn_func": f"q, k, v, {TAIL}",
    "flash_attn_qkvpacked_func": f"qkv, {TAIL}",
    "flash_attn_kvpacked_func": f"q, kv, {TAIL}",
    "flash_attn_varlen_func": f"q, k, v, {VARLEN}, {TAIL}, block_table=None",
    "flash_attn_varlen_qkvpacked_func": f"qkv, cu_seqlens, max_seqlen, {TAIL}",
    "flash_attn_varlen_kvpacked_func": f"q, kv, {VARLEN}, {TAIL}",
    "flash_attn_with_kvcache": (
        "q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
        "cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None, causal=False, "
        "window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None, num_splits=0, "
        "return_softmax_lse=False"
    ),
    "_flash_attn_forward": (
        "q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, alibi_slopes, "
        "return_softmax"
    ),
    "_flash_attn_varlen_forward": (
        f"q, k, v, {VARLEN}, dropout_p, softmax_scale, causal, window_size_left=-1, window_size_right=-1, "
        "softcap=0.0, alibi_slopes=None, return_softmax=False, block_table=None, leftpad_k=None, seqused_k=None, "
        "zero_tensors=False, num_splits=0"
    ),
    "_flash_attn_backward": f"{GRADIENTS}, {BACKWARD}",
    "_flash_attn_varlen_backward": f"{GRADIENTS}, {VARLEN}, {BACKWARD}, zero_tensors=False",
    "maybe_contiguous": "x",
    "round_multiple": "x, m",
    "_get_block_size_n": "device, head_dim, is_dropout, is_causal",
}

DESCALES = "q_descale=None, k_descale=None, v_descale=None"
VERSION_3 = {
    "flash_attn_func": (
        f"q, k, v, softmax_scale=None, causal=False, qv=None, {DESCALES}, window_size=(-1, -1), attention_chunk=0, "
        "softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False, "
        "s_aux=None"
    ),
    "flash_attn_qkvpacked_func": (
        f"qkv, softmax_scale=None, causal=False, {DESCALES}, window_size=(-1, -1), attention_chunk=0, softcap=0.0, "
        "deterministic=False, num_heads_q=None, sm_margin=0, return_attn_probs=False"
    ),
    "flash_attn_varlen_func": (
        f"q, k, v, {VARLEN}, seqused_q=None, seqused_k=None, softmax_scale=None, causal=False, qv=None, {DESCALES}, "
        "window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, "
        "sm_margin=0, return_attn_probs=False, s_aux=None"
    ),
    "flash_attn_with_kvcache": (
        "q, k_cache, v_cache, k=None, v=None, qv=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
        "cache_batch_idx=None, cache_leftpad=None, page_table=None, cu_seqlens_q=None, cu_seqlens_k_new=None, "
        f"max_seqlen_q=None, rotary_seqlens=None, {DESCALES}, softmax_scale=None, causal=False, "
        "window_size=(-1, -1), attention_chunk=0, softcap=0.0, rotary_interleaved=True, scheduler_metadata=None, "
        "num_splits=0, pack_gqa=None, sm_margin=0, return_softmax_lse=False, s_aux=None"
    ),
    "flash_attn_combine": "out_partial, lse_partial, out=None, out_dtype=None",
    "get_scheduler_metadata": (
        "batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim, cache_seqlens, "
        "qkv_dtype=torch.bfloat16, headdim_v=None, cu_seqlens_q=None, cu_seqlens_k_new=None, cache_leftpad=None, "
        "page_size=None, max_seqlen_k_new=0, causal=False, window_size=(-1, -1), attention_chunk=0, "
        "has_softcap=False, num_splits=0, pack_gqa=None, sm_margin=0"
    ),
    "_flash_attn_forward": (
        "q, k, v, k_new=None, v_new=None, qv=None, out_=None, cu_seqlens_q=None, cu_seqlens_k=None, "
        "cu_seqlens_k_new=None, seqused_q=None, seqused_k=None, max_seqlen_q=None, max_seqlen_k=None, "
        "page_table=None, kv_batch_idx=None, leftpad_k=None, rotary_cos=None, rotary_sin=None, seqlens_rotary=None, "
        f"{DESCALES}, softmax_scale=None, causal=False, window_size_left=-1, window_size_right=-1, "
        "attention_chunk=0, softcap=0.0, rotary_interleaved=True, scheduler_metadata=None, num_splits=1, "
        "pack_gqa=None, sm_margin=0, s_aux=None"
    ),
    "_flash_attn_backward": (
        "dout, q, k, v, out, softmax_lse, cu_seqlens_q=None, cu_seqlens_k=None, sequed_q=None, sequed_k=None, "
        "max_seqlen_q=None, max_seqlen_k=None, dq=None, dk=None, dv=None, softmax_scale=None, is_causal=False, "
        "window_size_left=-1, window_size_right=-1, softcap=0.0, deterministic=False, sm_margin=0"
    ),
}

GATHER = "gather_bwd_recompute_p=False, gather_bwd_token_chunk=None"
VERSION_4 = {
    "flash_attn_func": (
        "q, k, v, qv=None, gather_kv_indices=None, softmax_scale=None, causal=False, window_size=(None, None), "
        "learnable_sink=None, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, score_mod=None, "
        "score_mod_bwd=None, mask_mod=None, aux_tensors=None, aux_scalars=None, block_sparse_tensors=None, "
        f"block_sparse_tensors_bwd=None, return_lse=False, {GATHER}"
    ),
    "flash_attn_varlen_func": (
        "q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None, "
        "min_seqlen_k=None, seqused_q=None, seqused_k=None, gather_kv_indices=None, page_table=None, "
        "softmax_scale=None, causal=False, window_size=(None, None), learnable_sink=None, softcap=0.0, num_splits=1, "
        "pack_gqa=None, deterministic=False, score_mod=None, score_mod_bwd=None, mask_mod=None, "
        "block_sparse_tensors=None, aux_tensors=None, aux_scalars=None, return_lse=False, scheduler_metadata=None, "
        f"seqlen_k_per_split=None, disable_scheduler_metadata=False, {GATHER}"
    ),
}

BERT_PADDING = {
    "unpad_input": "hidden_states, attention_mask, unused_mask=None",
    "unpad_input_for_concatenated_sequences": "hidden_states, attention_mask_in_length",
    "pad_input": "hidden_states, indices, batch, seqlen",
    "index_first_axis": "input, indices",
    "index_put_first_axis": "values, indices, first_axis_dim",
    "index_first_axis_residual": "input, indices",
}

ROTARY = {
    "apply_rotary_emb": (
        "x, cos, sin, interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None"
    ),
    "apply_rotary_emb_qkv_": (
        "qkv, cos, sin, cos_k=None, sin_k=None, interleaved=False, seqlen_offsets=0, num_heads_q=None"
    ),
    "apply_rotary_emb_kv_": "kv, cos, sin, interleaved=False, seqlen_offsets=0",
    "apply_rotary_emb_torch": "x, cos, sin, interleaved=False",
    "rotate_half": "x, interleaved=False",
    "RotaryEmbedding": "dim, base=10000.0, interleaved=False, scale_base=None, device=None",
}
ROTARY_FORWARD = "self, qkv, kv=None, seqlen_offset=0, max_seqlen=None, num_heads_q=None"
TRITON_ROTARY = {
    "apply_rotary": (
        "x, cos, sin, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None, interleaved=False, inplace=False, "
        "conjugate=False"
    )
}

ALL = [
    (module, name, signature)
    for module, signatures in (
        (flash_attn_interface, VERSION_2), (fa3, VERSION_3), (cute, VERSION_4), (bert_padding, BERT_PADDING),
        (rotary, ROTARY), (triton_rotary, TRITON_ROTARY),
    )
    for name, signature in signatures.items()
]


def signature_of(function) -> str:
    parameters = inspect.signature(function).parameters.values()
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)


@pytest.mark.parametrize("module, name, signature", ALL, ids=[f"{m.__name__}.{n}" for m, n, _ in ALL])
def test_signature_is_literally_flash_attns(module, name, signature):
    assert signature_of(getattr(module, name)) == signature
    assert name in module.__all__
    assert inspect.getdoc(getattr(module, name))


def test_rotary_embedding_forward():
    assert signature_of(rotary.RotaryEmbedding.forward) == ROTARY_FORWARD


def test_the_package_exports_the_seven_public_functions():
    public = [name for name in VERSION_2 if name.startswith("flash_attn")]
    assert len(public) == 7
    for name in public:
        assert getattr(flash_attn, name) is getattr(flash_attn_interface, name)
    assert flash_attn.__version__ == "2.8.4"
