"""flash_attn_interface of version 3 against plain torch in f64: every function and argument."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import (  # noqa: E402
    assert_close,
    cumulative,
    dense,
    gradients_of,
    packed,
    paged_copy,
    randn,
    rotate,
)
from flash_attn_support import table as rotary_table  # noqa: E402
from regard.flash_attn.fa3 import flash_attn_interface as fa3  # noqa: E402

NAMES = {
    "softmax_scale": "scale", "window_size": "window", "causal": "causal", "softcap": "softcap",
    "attention_chunk": "chunk",
}
OPTIONS = [
    {},
    {"causal": True, "softmax_scale": 0.3},
    {"window_size": (3, 1), "softcap": 2.0},
    {"window_size": (1, -1)},
    {"attention_chunk": 4},
    {"attention_chunk": 3, "causal": True},
]
GPU_ONLY = {"num_splits": 3, "pack_gqa": True, "deterministic": True, "sm_margin": 2}


def reference_options(options):
    return {NAMES[name]: value for name, value in options.items()}


def tensors(b=2, sq=5, skv=9, hq=4, hkv=2, d=16, dv=None, dtype=torch.float32, grad=True):
    return (
        randn(b, sq, hq, d, dtype=dtype, grad=grad, seed=1), randn(b, skv, hkv, d, dtype=dtype, grad=grad, seed=2),
        randn(b, skv, hkv, dv or d, dtype=dtype, grad=grad, seed=3),
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("lengths", [(5, 9), (7, 3)], ids=str)
def test_flash_attn_func_and_its_gradients(lengths, options):
    q, k, v = tensors(sq=lengths[0], skv=lengths[1], dv=12)
    out, lse = fa3.flash_attn_func(q, k, v, return_attn_probs=True, **options, **GPU_ONLY)
    expected, expected_lse = dense(q, k, v, **reference_options(options))
    assert_close(out, expected)
    assert_close(lse, expected_lse)  # an empty row is -inf here
    dout = randn(*out.shape, seed=4)
    for got, want in zip(gradients_of((out * dout).sum(), q, k, v), gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)
    assert torch.equal(fa3.flash_attn_func(q, k, v, **options), out)


def test_the_fourth_position_is_softmax_scale():
    q, k, v = tensors(grad=False)
    assert_close(fa3.flash_attn_func(q, k, v, 0.7, True), dense(q, k, v, scale=0.7, causal=True)[0])


def test_gradient_of_lse():
    q, k, v = tensors()
    _, lse = fa3.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    _, expected = dense(q, k, v, causal=True)
    weights = randn(*lse.shape, seed=4)
    for got, want in zip(gradients_of((lse * weights).sum(), q, k), gradients_of((expected * weights).sum(), q, k)):
        assert_close(got, want, factor=3)


def test_lse_of_keys_without_rows_is_plus_infinity():
    q, k, v = tensors(skv=0)
    out, lse = fa3.flash_attn_func(q, k, v, return_attn_probs=True)
    assert (out == 0).all() and torch.isposinf(lse).all()
    q, k, v = tensors(sq=3, skv=1)
    _, lse = fa3.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    assert torch.isneginf(lse[:, :, :2]).all()


def test_qv_adds_a_second_product_and_widens_the_default_scale():
    q, k, v = tensors(d=8, dv=24, grad=False)
    qv = randn(2, 5, 4, 24, seed=6)
    out, lse = fa3.flash_attn_func(q, k, v, qv=qv, causal=True, return_attn_probs=True)
    expected, expected_lse = dense(q, k, v, qv=qv, causal=True)
    assert_close(out, expected)
    assert_close(lse, expected_lse)
    with pytest.raises(regard.Error) as caught:
        fa3.flash_attn_func(q.requires_grad_(), k, v, qv=qv).sum().backward()
    assert caught.value.field == "qv"


@pytest.mark.parametrize("sink_type", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_s_aux_joins_the_softmax_and_has_a_gradient(dtype, sink_type):
    q, k, v = tensors(sq=6, skv=4, dtype=dtype)
    sink = randn(4, dtype=sink_type, grad=True, seed=7)
    out, lse = fa3.flash_attn_func(q, k, v, causal=True, s_aux=sink, return_attn_probs=True)
    expected, expected_lse = dense(q, k, v, causal=True, sink=sink)
    assert_close(out, expected, dtype)
    assert_close(lse, expected_lse, dtype)
    assert torch.isfinite(lse).all()
    dout = randn(*out.shape, seed=4)
    actual = gradients_of((out * dout).sum(), q, k, v, sink)
    assert actual[3].dtype == sink_type
    for got, want in zip(actual, gradients_of((expected * dout).sum(), q, k, v, sink)):
        assert_close(got, want, torch.bfloat16 if torch.bfloat16 in (dtype, sink_type) else sink_type, factor=3)


def test_fp8_with_descales_gives_bf16():
    q, k, v = (x.to(torch.float8_e4m3fn) for x in tensors(d=32, grad=False))
    descales = {name: randn(2, 2, seed=s).abs() + 0.5 for name, s in (("q", 1), ("k", 2), ("v", 3))}
    out, lse = fa3.flash_attn_func(
        q, k, v, causal=True, return_attn_probs=True, **{f"{name}_descale": d for name, d in descales.items()}
    )
    real = [x.double() * d[:, None, :, None] for x, d in ((k, descales["k"]), (v, descales["v"]))]
    scaled = q.double() * descales["q"].double().repeat_interleave(2, 1)[:, None, :, None]
    expected, expected_lse = dense(scaled, *real, causal=True)
    assert out.dtype == torch.bfloat16
    assert_close(out, expected, torch.bfloat16)
    assert_close(lse, expected_lse, torch.float16)
    expanded = torch.full((1, 1), 2.0).expand(2, 2)
    out = fa3.flash_attn_func(q, k, v, v_descale=expanded)
    assert_close(out, dense(q.double(), k.double(), v.double() * 2)[0], torch.bfloat16)


@pytest.mark.parametrize("num_heads_q", [None, 4])
def test_qkvpacked(num_heads_q):
    shape = (2, 7, 3, 2, 16) if num_heads_q is None else (2, 7, num_heads_q + 4, 16)
    qkv = randn(*shape, grad=True)
    parts = qkv.unbind(2) if num_heads_q is None else qkv.split([4, 2, 2], 2)
    out, lse = fa3.flash_attn_qkvpacked_func(
        qkv, causal=True, window_size=[4, 0], num_heads_q=num_heads_q, return_attn_probs=True
    )
    expected, expected_lse = dense(*parts, causal=True, window=(4, 0))
    assert_close(out, expected)
    assert_close(lse, expected_lse)
    got, want = gradients_of(out.square().sum(), qkv)[0], gradients_of(expected.square().sum(), qkv)[0]
    assert_close(got, want, factor=3)
    with pytest.raises(regard.Error) as caught:
        fa3.flash_attn_qkvpacked_func(randn(1, 4, 6, 16))
    assert caught.value.field == "num_heads_q"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_varlen_with_used_lengths(options):
    cu_q, cu_k = cumulative([5, 0, 4]), cumulative([7, 3, 6])
    used_q, used_k = [4, 0, 4], [7, 2, 0]
    q, k, v = (randn(n, h, d, grad=True, seed=s) for n, h, d, s in ((9, 4, 16, 1), (16, 2, 16, 2), (16, 2, 8, 3)))
    out, lse = fa3.flash_attn_varlen_func(
        q, k, v, cu_q, cu_k, 5, 7, torch.tensor(used_q), torch.tensor(used_k), return_attn_probs=True, **options
    )
    expected, expected_lse = packed(q, k, v, cu_q, cu_k, used_q=used_q, used_k=used_k, **reference_options(options))
    assert_close(out, expected)
    assert_close(lse, expected_lse)
    dout = randn(*out.shape, seed=4)
    for got, want in zip(gradients_of((out * dout).sum(), q, k, v), gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)


@pytest.mark.parametrize("packed_q, packed_k", [(True, False), (False, True)])
def test_varlen_of_one_packed_and_one_dense_side(packed_q, packed_k):
    q, k, v = tensors(b=2, sq=4, skv=6)
    cu_q, cu_k = cumulative([4, 4]), cumulative([6, 6])
    sink = randn(4, grad=True, seed=7)
    given_q = q.flatten(0, 1) if packed_q else q
    given_k, given_v = (x.flatten(0, 1) if packed_k else x for x in (k, v))
    out, lse = fa3.flash_attn_varlen_func(
        given_q, given_k, given_v, cu_q if packed_q else None, cu_k if packed_k else None, 4, 6, causal=True,
        return_attn_probs=True, s_aux=sink,
    )
    expected, expected_lse = dense(q, k, v, causal=True, sink=sink)
    assert_close(out.reshape(expected.shape), expected)
    assert_close(lse.reshape(4, 2, 4).transpose(0, 1) if packed_q else lse, expected_lse)
    got = gradients_of(out.square().sum() + lse.sum(), q, k, v, sink)
    for a, b in zip(got, gradients_of(expected.square().sum() + expected_lse.sum(), q, k, v, sink)):
        assert_close(a, b, factor=3)


def test_combine_merges_disjoint_keys_with_the_heads_last():
    q, k, v = tensors(skv=12, grad=False)
    whole, whole_lse = dense(q, k, v)
    parts = [dense(q, k[:, i : i + 4], v[:, i : i + 4]) for i in (0, 4, 8)]
    outs = torch.stack([p[0] for p in parts]).float()
    lses = torch.stack([p[1].transpose(1, 2) for p in parts]).float()
    out, lse = fa3.flash_attn_combine(outs, lses)
    assert_close(out, whole)
    assert_close(lse, whole_lse.transpose(1, 2))
    assert lse.shape == (2, 5, 4)
    target = torch.empty(2, 5, 4, 16, dtype=torch.bfloat16)
    returned, _ = fa3.flash_attn_combine(outs, lses, out=target)
    assert returned is target
    assert_close(target, whole, torch.bfloat16)
    assert fa3.flash_attn_combine(outs, lses, out_dtype=torch.float16)[0].dtype == torch.float16
    flat, flat_lse = fa3.flash_attn_combine(outs.flatten(1, 2), lses.flatten(1, 2))
    assert torch.equal(flat.view_as(out), out) and torch.equal(flat_lse.view_as(lse), lse)


def test_combine_ignores_parts_that_saw_nothing_even_nan():
    out, lse = torch.randn(2, 3, 2, 4), torch.tensor([[[0.5, -math.inf]] * 3, [[-math.inf, math.inf]] * 3])
    out[1, :, 0] = math.nan
    merged, merged_lse = fa3.flash_attn_combine(out, lse)
    assert_close(merged[:, 0], out[0, :, 0])
    assert (merged[:, 1] == 0).all()
    assert merged_lse.tolist() == [[0.5, -math.inf]] * 3
    with pytest.raises(regard.Error) as caught:
        fa3.flash_attn_combine(out, lse[:1])
    assert caught.value.field == "lse_partial"


USED = [5, 0, 11]


def cache_case(rows=2, dtype=torch.float32, dv=8):
    q = randn(3, rows, 4, 16, dtype=dtype, seed=1)
    return q, randn(3, 14, 2, 16, dtype=dtype, seed=2), randn(3, 14, 2, dv, dtype=dtype, seed=3)


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


def test_kvcache_returns_out_or_four_values():
    q, k_cache, v_cache = cache_case()
    out = fa3.flash_attn_with_kvcache(
        q, k_cache, v_cache, cache_seqlens=int32(USED), num_splits=2, pack_gqa=False, sm_margin=1
    )
    values = fa3.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=int32(USED), return_softmax_lse=True)
    expected, expected_lse = dense(q, k_cache, v_cache, used_k=USED)
    assert len(values) == 4 and torch.equal(values[0], out)
    assert_close(out, expected)
    assert_close(values[1], expected_lse)
    assert values[2].numel() == 0 and values[3].numel() == 0


@pytest.mark.parametrize("page_size", [None, 1, 4])
@pytest.mark.parametrize("packed_new", [False, True])
@pytest.mark.parametrize("packed_q", [False, True])
def test_kvcache_appends_whatever_the_layouts(packed_q, packed_new, page_size):
    rows = [2, 1, 3] if packed_q else [2, 2, 2]
    news = [1, 3, 2] if packed_new else [2, 2, 2]
    q = randn(sum(rows), 4, 16, seed=1)
    k_new, v_new = randn(sum(news), 2, 16, seed=5), randn(sum(news), 2, 8, seed=6)
    _, k_cache, v_cache = cache_case()
    k_after, v_after = k_cache.clone(), v_cache.clone()
    cu_new = cumulative(news).tolist()
    for b, used in enumerate(USED):
        k_after[b, used : used + news[b]] = k_new[cu_new[b] : cu_new[b + 1]]
        v_after[b, used : used + news[b]] = v_new[cu_new[b] : cu_new[b + 1]]
    extra = {}
    held = k_cache, v_cache
    if page_size:
        (k_pages, pages), (v_pages, _) = paged_copy(k_cache, USED, page_size), paged_copy(v_cache, USED, page_size)
        held, extra["page_table"] = (k_pages, v_pages), pages
    if packed_q:
        extra |= {"cu_seqlens_q": cumulative(rows), "max_seqlen_q": 3}
    if packed_new:
        extra["cu_seqlens_k_new"] = cumulative(news)
    new = (x if packed_new else x.view(3, 2, 2, -1) for x in (k_new, v_new))
    out, lse, *_ = fa3.flash_attn_with_kvcache(
        q if packed_q else q.view(3, 2, 4, 16), *held, *new,
        cache_seqlens=int32(USED), causal=True, return_softmax_lse=True, **extra,
    )
    cu_q = cumulative(rows)
    totals = [used + n for used, n in zip(USED, news)]
    flat_k, flat_v = (torch.cat([x[b, :n] for b, n in enumerate(totals)]) for x in (k_after, v_after))
    expected, expected_lse = packed(q, flat_k, flat_v, cu_q, cumulative(totals), causal=True)
    assert_close(out.reshape(expected.shape), expected)
    assert_close(lse if packed_q else lse.transpose(0, 1).reshape(4, 6), expected_lse)
    if not page_size:
        assert torch.equal(k_cache, k_after) and torch.equal(v_cache, v_after)


@pytest.mark.parametrize("packed_q", [False, True])
@pytest.mark.parametrize("paged", [False, True])
def test_kvcache_cache_batch_idx_picks_rows_of_cache_or_page_table(paged, packed_q):
    q, k_cache, v_cache = cache_case(rows=1)
    index, used = [2, 0], [11, 5]
    held, extra = (k_cache, v_cache), {}
    if paged:
        (k_pages, pages), (v_pages, _) = paged_copy(k_cache, USED, 4), paged_copy(v_cache, USED, 4)
        held, extra = (k_pages, v_pages), {"page_table": pages}
    given = q[:2]
    if packed_q:
        given, extra["cu_seqlens_q"] = given.flatten(0, 1), cumulative([1, 1])
    out = fa3.flash_attn_with_kvcache(
        given, *held, cache_seqlens=int32(used), cache_batch_idx=int32(index), **extra
    )
    assert_close(out.view(2, 1, 4, 8), dense(q[:2], k_cache[index], v_cache[index], used_k=used)[0])


@pytest.mark.parametrize("base", [None, [3, 7, 0]])
@pytest.mark.parametrize("interleaved", [True, False])
def test_kvcache_rotary_begins_at_cache_seqlens_or_rotary_seqlens(interleaved, base):
    q, k_cache, v_cache = cache_case()
    k_new, v_new = randn(3, 2, 2, 16, seed=5), randn(3, 2, 2, 8, seed=6)
    cos, sin = rotary_table(14, 6)
    positions = torch.tensor(USED if base is None else base)[:, None] + torch.arange(2)
    k_after, v_after = k_cache.clone(), v_cache.clone()
    turned = rotate(k_new, cos, sin, positions, interleaved)
    for b, used in enumerate(USED):
        k_after[b, used : used + 2], v_after[b, used : used + 2] = turned[b], v_new[b]
    out = fa3.flash_attn_with_kvcache(
        q, k_cache, v_cache, k_new, v_new, rotary_cos=cos, rotary_sin=sin, cache_seqlens=int32(USED), causal=True,
        rotary_interleaved=interleaved, rotary_seqlens=None if base is None else int32(base),
    )
    assert_close(k_cache, k_after)
    expected, _ = dense(
        rotate(q, cos, sin, positions, interleaved), k_after, v_after, used_k=[n + 2 for n in USED], causal=True
    )
    assert_close(out, expected)


def test_kvcache_window_as_wide_as_the_queries_still_counts_as_local_for_rotary():
    q, k_cache, v_cache = cache_case(rows=3)
    k_new, v_new = randn(3, 3, 2, 16, seed=5), randn(3, 3, 2, 8, seed=6)
    cos, sin = rotary_table(20, 8)
    out = fa3.flash_attn_with_kvcache(
        q, k_cache, v_cache, k_new, v_new, rotary_cos=cos, rotary_sin=sin, cache_seqlens=int32(USED),
        window_size=(-1, 2),
    )
    positions = torch.tensor(USED)[:, None] + torch.arange(3)
    expected, _ = dense(
        rotate(q, cos, sin, positions, True), k_cache, v_cache, used_k=[n + 3 for n in USED], window=(-1, 2)
    )
    assert_close(out, expected)


def test_kvcache_chunks_qv_sinks_and_left_padding_together():
    q, k_cache, v_cache = cache_case()
    qv, sink, pad = randn(3, 2, 4, 8, seed=8), randn(4, seed=9), [1, 0, 4]
    values = fa3.flash_attn_with_kvcache(
        q, k_cache, v_cache, qv=qv, cache_seqlens=int32(USED), cache_leftpad=int32(pad), attention_chunk=3, causal=True,
        softcap=3.0, softmax_scale=0.4, s_aux=sink, return_softmax_lse=True,
        scheduler_metadata=fa3.get_scheduler_metadata(3, 2, 14, 4, 2, 16, int32(USED), headdim_v=8),
    )
    expected, expected_lse = dense(
        q, k_cache, v_cache, qv=qv, used_k=USED, leftpad=pad, chunk=3, causal=True, softcap=3.0, scale=0.4, sink=sink
    )
    assert_close(values[0], expected)
    assert_close(values[1], expected_lse)


def test_kvcache_of_fp8_stores_new_tokens_in_the_units_of_the_cache():
    q, k_cache, v_cache = (x.to(torch.float8_e4m3fn) for x in cache_case(rows=1, dv=16))
    k_new = randn(3, 1, 2, 16, seed=5).to(torch.float8_e4m3fn)
    descale = torch.full((3, 2), 0.5)
    out = fa3.flash_attn_with_kvcache(
        q, k_cache, v_cache, k_new, k_new, cache_seqlens=int32(USED), q_descale=descale, k_descale=descale,
        v_descale=descale,
    )
    for b, used in enumerate(USED):
        assert torch.equal(k_cache[b, used].float(), k_new[b, 0].float())
    expected, _ = dense(
        q.double() * 0.5, k_cache.double() * 0.5, v_cache.double() * 0.5, used_k=[n + 1 for n in USED]
    )
    assert out.dtype == torch.bfloat16
    assert_close(out, expected, torch.bfloat16)


def test_kvcache_number_for_cache_seqlens_counts_sequences_not_tokens():
    q, k_cache, v_cache = cache_case()
    out = fa3.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=6)
    assert_close(out, dense(q, k_cache, v_cache, used_k=[6] * 3)[0])
    flat = fa3.flash_attn_with_kvcache(
        q.flatten(0, 1), k_cache, v_cache, cache_seqlens=6, cu_seqlens_q=cumulative([2, 2, 2]), max_seqlen_q=2
    )
    assert_close(flat.view_as(out), out)
    assert_close(fa3.flash_attn_with_kvcache(q, k_cache, v_cache), dense(q, k_cache, v_cache)[0])


def test_kvcache_result_has_no_gradient():
    q, k_cache, v_cache = cache_case()
    values = fa3.flash_attn_with_kvcache(q.requires_grad_(), k_cache, v_cache, return_softmax_lse=True)
    assert not any(x.requires_grad for x in values)


def test_kvcache_refusals_name_the_argument():
    q, k_cache, v_cache = cache_case()
    cos, sin = rotary_table(14, 8)
    for field, change in (
        ("cache_seqlens", {"k": randn(3, 1, 2, 16), "v": randn(3, 1, 2, 8)}),
        ("k", {"rotary_cos": cos, "rotary_sin": sin, "cache_seqlens": int32(USED)}),
        ("window_size", {"window_size": (1,)}),
    ):
        with pytest.raises(regard.Error) as caught:
            fa3.flash_attn_with_kvcache(q, k_cache, v_cache, **change)
        assert caught.value.field == field
    with pytest.raises(regard.Error) as caught:
        fa3.flash_attn_with_kvcache(q, k_cache.transpose(2, 3), v_cache)
    assert caught.value.field == "k_cache"


def test_private_forward_writes_out_and_backward_gives_its_gradients():
    q, k, v = tensors(dv=12)
    target = torch.full((2, 5, 4, 12), math.nan)
    out, lse, out_accum, lse_accum = fa3._flash_attn_forward(
        q, k, v, out_=target, softmax_scale=0.3, causal=True, window_size_left=3
    )
    assert out.data_ptr() == target.data_ptr() and out_accum.numel() == lse_accum.numel() == 0
    expected, expected_lse = dense(q, k, v, scale=0.3, causal=True, window=(3, -1))
    assert_close(target, expected)
    assert_close(lse, expected_lse)
    dout = randn(*out.shape, seed=4)
    dq, dk, dv = (torch.full_like(x, math.nan) for x in (q, k, v))
    softmax_d = fa3._flash_attn_backward(
        dout, q, k, v, out, lse, dq=dq, dk=dk, dv=dv, softmax_scale=0.3, is_causal=True, window_size_left=3
    )
    for got, want in zip((dq, dk, dv), gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)
    assert softmax_d.shape == (2, 4, 128)
    assert_close(softmax_d[:, :, :5], (dout * expected).sum(-1).transpose(1, 2))


def test_private_forward_and_backward_of_packed_sequences_with_used_lengths():
    cu_q, cu_k, used_q, used_k = cumulative([3, 4]), cumulative([5, 6]), [3, 2], [4, 6]
    q, k, v = (randn(n, h, 16, grad=True, seed=s) for n, h, s in ((7, 4, 1), (11, 2, 2), (11, 2, 3)))
    lengths = {"cu_seqlens_q": cu_q, "cu_seqlens_k": cu_k, "max_seqlen_q": 4, "max_seqlen_k": 6}
    out, lse, *_ = fa3._flash_attn_forward(q, k, v, seqused_q=int32(used_q), seqused_k=int32(used_k), **lengths)
    expected, expected_lse = packed(q, k, v, cu_q, cu_k, used_q=used_q, used_k=used_k)
    assert_close(out, expected)
    assert_close(lse, expected_lse)
    dout = randn(*out.shape, seed=4)
    dq, dk, dv = (torch.full_like(x, math.nan) for x in (q, k, v))
    fa3._flash_attn_backward(
        dout, q, k, v, out, lse, sequed_q=int32(used_q), sequed_k=int32(used_k), dq=dq, dk=dk, dv=dv, **lengths
    )
    for got, want in zip((dq, dk, dv), gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)


def test_scheduler_metadata_is_an_int32_tensor_and_checks_its_arguments():
    metadata = fa3.get_scheduler_metadata(3, 1, 64, 8, 2, 64, int32(USED), page_size=16, causal=True)
    assert metadata.dtype == torch.int32
    with pytest.raises(regard.Error) as caught:
        fa3.get_scheduler_metadata(2, 1, 64, 8, 2, 64, int32(USED))
    assert caught.value.field == "cache_seqlens"
    with pytest.raises(regard.Error) as caught:
        fa3.get_scheduler_metadata(3, 1, 64, 7, 2, 64, int32(USED))
    assert caught.value.field == "num_heads_q"


def test_config_leaves_nothing_out(capsys):
    from regard.flash_attn.fa3 import flash_attn_config

    assert not any(flash_attn_config.CONFIG["build_flags"].values())
    assert flash_attn_config.CONFIG["build_flags"]["FLASHATTENTION_DISABLE_HDIM256"] is False
    flash_attn_config.show()
    assert "FLASHATTENTION_DISABLE_PAGEDKV" in capsys.readouterr().out
