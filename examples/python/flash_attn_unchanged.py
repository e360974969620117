"""Code written for flash-attn, unchanged, on a machine without a GPU.

Everything below `regard.flash_attn.install()` imports flash_attn as its users do and calls every function of it. Run it:

    python examples/python/flash_attn_unchanged.py
"""

import regard.flash_attn

regard.flash_attn.install()

# From here on, nothing knows about regard.
import torch  # noqa: E402
from flash_attn import (  # noqa: E402
    __version__,
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)
from flash_attn.bert_padding import (  # noqa: E402
    index_first_axis,
    index_put_first_axis,
    pad_input,
    unpad_input,
    unpad_input_for_concatenated_sequences,
)
from flash_attn.cute import flash_attn_func as flash_attn_4_func  # noqa: E402
from flash_attn.cute import flash_attn_varlen_func as flash_attn_4_varlen_func  # noqa: E402
from flash_attn.flash_attn_interface import (  # noqa: E402
    _flash_attn_backward,
    _flash_attn_forward,
    _flash_attn_varlen_backward,
    _flash_attn_varlen_forward,
)
from flash_attn.layers.rotary import (  # noqa: E402
    RotaryEmbedding,
    apply_rotary_emb,
    apply_rotary_emb_kv_,
    apply_rotary_emb_qkv_,
)
from flash_attn.ops.triton.rotary import apply_rotary  # noqa: E402

import flash_attn_interface  # noqa: E402

B, S, HQ, HKV, D = 2, 48, 8, 2, 64
DTYPE = torch.bfloat16


def show(name, result):
    """Prints the shape of each tensor of a result, having looked that it is finite."""
    tensors = [t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, torch.Tensor)]
    assert all(torch.isfinite(t.float()).all() for t in tensors), name
    print(f"{name:44s}", " ".join(str(tuple(t.shape)) for t in tensors))


def rand(*shape, grad=False):
    return torch.randn(shape, dtype=DTYPE).requires_grad_(grad)


def version_2():
    q, k, v = rand(B, S, HQ, D, grad=True), rand(B, S, HKV, D, grad=True), rand(B, S, HKV, D, grad=True)
    out = flash_attn_func(q, k, v, causal=True)
    out.sum().backward()
    show("flash_attn_func", out)
    show("  its gradients", (q.grad, k.grad, v.grad))
    show("  with dropout, return_attn_probs", flash_attn_func(q, k, v, dropout_p=0.1, return_attn_probs=True))
    show("  sliding window, softcap", flash_attn_func(q, k, v, causal=True, window_size=(15, 0), softcap=30.0))
    slopes = 2.0 ** -torch.arange(1, HQ + 1)
    show("  ALiBi", flash_attn_func(q, k, v, causal=True, alibi_slopes=slopes, deterministic=True))
    show("flash_attn_qkvpacked_func", flash_attn_qkvpacked_func(rand(B, S, 3, HQ, D), causal=True))
    show("flash_attn_kvpacked_func", flash_attn_kvpacked_func(q, rand(B, S, 2, HKV, D), causal=True))

    mask = torch.arange(S) < torch.tensor([S, S // 3])[:, None]
    x = rand(B, S, 3, HQ, D)
    states, indices, cu, longest, used = unpad_input(x, mask)
    show("unpad_input", (states, indices, cu, used))
    out = flash_attn_varlen_qkvpacked_func(states, cu, longest, causal=True)
    show("flash_attn_varlen_qkvpacked_func", out)
    show("pad_input", pad_input(out, indices, B, S))
    show("index_first_axis", index_first_axis(x.flatten(0, 1), indices))
    show("index_put_first_axis", index_put_first_axis(states, indices, B * S))
    lengths = torch.tensor([[20, 10] + [0] * (S - 2), [S] + [0] * (S - 1)])
    show("unpad_input_for_concatenated_sequences", unpad_input_for_concatenated_sequences(x, lengths))
    q, k, v = states.unbind(1)
    show("flash_attn_varlen_func", flash_attn_varlen_func(q, k, v, cu, cu, longest, longest, causal=True))
    kv = torch.stack((k, v), 1)
    show("flash_attn_varlen_kvpacked_func", flash_attn_varlen_kvpacked_func(q, kv, cu, cu, longest, longest))


def kv_cache():
    k_cache, v_cache = rand(B, S, HKV, D), rand(B, S, HKV, D)
    lens = torch.tensor([30, 7], dtype=torch.int32)
    q, k, v = rand(B, 1, HQ, D), rand(B, 1, HKV, D), rand(B, 1, HKV, D)
    angles = torch.outer(torch.arange(S).float(), 10000.0 ** (-torch.arange(D // 2) / (D // 2)))
    cos, sin = angles.cos().to(DTYPE), angles.sin().to(DTYPE)
    out = flash_attn_with_kvcache(
        q, k_cache, v_cache, k, v, rotary_cos=cos, rotary_sin=sin, cache_seqlens=lens, causal=True,
        rotary_interleaved=False, return_softmax_lse=True,
    )
    show("flash_attn_with_kvcache, append and rotary", out)
    pages = rand(12, 16, HKV, D)
    table = torch.randperm(12).to(torch.int32).view(B, 6)
    out = flash_attn_with_kvcache(q, pages, pages, cache_seqlens=lens, block_table=table, causal=True)
    show("  pages of 16 tokens", out)
    index = torch.tensor([1, 0], dtype=torch.int32)
    show("  cache_batch_idx, cache_leftpad", flash_attn_with_kvcache(
        q, k_cache, v_cache, cache_seqlens=lens, cache_batch_idx=index, cache_leftpad=lens // 2
    ))


def rotary():
    x, qkv, kv = rand(B, S, HQ, D), rand(B, S, 3, HQ, D), rand(B, S, 2, HKV, D)
    angles = torch.outer(torch.arange(S).float(), 10000.0 ** (-torch.arange(D // 2) / (D // 2)))
    cos, sin = angles.cos().to(DTYPE), angles.sin().to(DTYPE)
    show("apply_rotary_emb", apply_rotary_emb(x, cos, sin))
    show("apply_rotary_emb_qkv_", apply_rotary_emb_qkv_(qkv, cos, sin))
    show("apply_rotary_emb_kv_", apply_rotary_emb_kv_(kv, cos, sin, interleaved=True))
    show("apply_rotary", apply_rotary(x, cos, sin, conjugate=True))
    show("RotaryEmbedding", RotaryEmbedding(D)(x, kv))


def private_functions():
    q, k, v = rand(B, S, HQ, D), rand(B, S, HKV, D), rand(B, S, HKV, D)
    out, lse, _, rng_state = _flash_attn_forward(q, k, v, 0.0, D**-0.5, True, -1, -1, 0.0, None, False)
    show("_flash_attn_forward", (out, lse, rng_state))
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _flash_attn_backward(out, q, k, v, out, lse, dq, dk, dv, 0.0, D**-0.5, True, -1, -1, 0.0, None, False, rng_state)
    show("_flash_attn_backward", (dq, dk, dv))
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    cu = torch.arange(B + 1, dtype=torch.int32) * S
    out, lse, _, _ = _flash_attn_varlen_forward(q, k, v, cu, cu, S, S, 0.0, D**-0.5, True)
    show("_flash_attn_varlen_forward", (out, lse))
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _flash_attn_varlen_backward(
        out, q, k, v, out, lse, dq, dk, dv, cu, cu, S, S, 0.0, D**-0.5, True, -1, -1, 0.0, None, False
    )
    show("_flash_attn_varlen_backward", (dq, dk, dv))


def version_3():
    fa3 = flash_attn_interface
    q, k, v = rand(B, S, HQ, D, grad=True), rand(B, S, HKV, D, grad=True), rand(B, S, HKV, D, grad=True)
    show("version 3: flash_attn_func", fa3.flash_attn_func(q, k, v, causal=True, return_attn_probs=True))
    show("  attention_chunk, s_aux", fa3.flash_attn_func(q, k, v, causal=True, attention_chunk=16, s_aux=rand(HQ)))
    q, k, v = q.detach(), k.detach(), v.detach()
    show("  qv", fa3.flash_attn_func(q, k, v, qv=rand(B, S, HQ, D)))
    fp8 = [x.to(torch.float8_e4m3fn) for x in (q, k, v)]
    scale = torch.ones(B, HKV)
    show("  fp8", fa3.flash_attn_func(*fp8, q_descale=scale, k_descale=scale, v_descale=scale))
    show("flash_attn_qkvpacked_func", fa3.flash_attn_qkvpacked_func(rand(B, S, HQ + 2 * HKV, D), num_heads_q=HQ))
    cu = torch.arange(B + 1, dtype=torch.int32) * S
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    lens = torch.tensor([30, 7], dtype=torch.int32)
    show("flash_attn_varlen_func", fa3.flash_attn_varlen_func(*flat, cu, cu, S, S, seqused_k=lens))
    table = torch.arange(B * 4, dtype=torch.int32).view(B, 4)
    metadata = fa3.get_scheduler_metadata(B, 1, S, HQ, HKV, D, lens, page_size=12)
    show("get_scheduler_metadata", metadata)
    show("flash_attn_with_kvcache", fa3.flash_attn_with_kvcache(
        q[:, :1], rand(B * 4, 12, HKV, D), rand(B * 4, 12, HKV, D), k[:, :1], v[:, :1], cache_seqlens=lens,
        page_table=table, scheduler_metadata=metadata, causal=True, return_softmax_lse=True,
    ))
    show("flash_attn_combine", fa3.flash_attn_combine(torch.randn(3, B, S, HQ, D), torch.randn(3, B, S, HQ)))


def version_4():
    q, k, v = rand(B, S, HQ, D, grad=True), rand(B, S, HKV, D, grad=True), rand(B, S, HKV, D, grad=True)
    sink = rand(HQ, grad=True)
    out, lse = flash_attn_4_func(q, k, v, causal=True, window_size=(15, None), learnable_sink=sink)
    out.sum().backward()
    show("version 4: flash_attn_func", (out, lse))
    show("  gradient of the sink", sink.grad)
    cu = torch.arange(B + 1, dtype=torch.int32) * S
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    show("flash_attn_varlen_func", flash_attn_4_varlen_func(*flat, cu_seqlens_q=cu, cu_seqlens_k=cu, causal=True))


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"flash_attn {__version__}, torch {torch.__version__}, no GPU needed")
    for part in (version_2, kv_cache, rotary, private_functions, version_3, version_4):
        part()
    regard.flash_attn.uninstall()
