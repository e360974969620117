"""flash_attn_varlen_func and its packed forms against plain torch in f64: every argument, values and gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import (  # noqa: E402
    assert_close,
    cumulative,
    dense,
    fa2_lse,
    gradients_of,
    packed,
    paged_copy,
    randn,
)
from regard import flash_attn as fa  # noqa: E402
from regard.flash_attn import flash_attn_interface as interface  # noqa: E402

LENGTHS = [([5, 0, 3, 7], [6, 4, 0, 7]), ([1, 1, 1], [9, 2, 17]), ([12], [5]), ([], [])]
OPTIONS = [
    {},
    {"causal": True},
    {"softmax_scale": 0.4, "causal": True, "window_size": (3, 0)},
    {"window_size": (2, 2), "softcap": 1.5},
]


def reference_options(options):
    names = {"softmax_scale": "scale", "window_size": "window", "causal": "causal", "softcap": "softcap"}
    return {names[name]: value for name, value in options.items()}


def case(lengths_q, lengths_k, hq=4, hkv=2, d=16, dtype=torch.float32, grad=True):
    cu_q, cu_k = cumulative(lengths_q), cumulative(lengths_k)
    q = randn(int(cu_q[-1]), hq, d, dtype=dtype, grad=grad, seed=1)
    k = randn(int(cu_k[-1]), hkv, d, dtype=dtype, grad=grad, seed=2)
    v = randn(int(cu_k[-1]), hkv, d, dtype=dtype, grad=grad, seed=3)
    return q, k, v, cu_q, cu_k, max(lengths_q, default=0), max(lengths_k, default=0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS[:3], ids=str)
def test_output_lse_and_gradients_are_the_references(lengths, options):
    q, k, v, cu_q, cu_k, max_q, max_k = case(*lengths)
    out, lse, empty = fa.flash_attn_varlen_func(
        q, k, v, cu_q, cu_k, max_q, max_k, return_attn_probs=True, **options
    )
    expected, expected_lse = packed(q, k, v, cu_q, cu_k, **reference_options(options))
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))
    assert empty.shape == (0,)
    dout = randn(*out.shape, seed=4)
    actual = gradients_of((out * dout).sum(), q, k, v)
    for got, want in zip(actual, gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)


def test_no_sequences_at_all():
    q, k, v, cu_q, cu_k, max_q, max_k = case(*LENGTHS[3])
    out, lse, _ = fa.flash_attn_varlen_func(q, k, v, cu_q, cu_k, max_q, max_k, return_attn_probs=True)
    assert out.shape == (0, 4, 16) and lse.shape == (4, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    q, k, v, cu_q, cu_k, max_q, max_k = case([17, 5], [20, 33], d=64, dtype=dtype)
    out = fa.flash_attn_varlen_func(q, k, v, cu_q, cu_k, max_q, max_k, causal=True)
    expected, _ = packed(q, k, v, cu_q, cu_k, causal=True)
    assert out.dtype == dtype
    assert_close(out, expected, dtype)
    for got, want in zip(gradients_of(out.float().sum(), q, k, v), gradients_of(expected.sum(), q, k, v)):
        assert got.dtype == dtype
        assert_close(got, want, dtype, factor=3)


def test_lse_of_causal_alibi_carries_slope_times_position_of_each_sequence():
    lengths_q, lengths_k = [5, 3], [6, 9]
    q, k, v, cu_q, cu_k, max_q, max_k = case(lengths_q, lengths_k)
    slopes = randn(2, 4, seed=8).abs()
    out, lse, _ = fa.flash_attn_varlen_func(
        q, k, v, cu_q, cu_k, max_q, max_k, causal=True, alibi_slopes=slopes, return_attn_probs=True
    )
    expected, plain = packed(q, k, v, cu_q, cu_k, causal=True, slopes=slopes)
    term = torch.cat(
        [slopes[b][:, None] * (torch.arange(n) + m - n) for b, (n, m) in enumerate(zip(lengths_q, lengths_k))], 1
    )
    assert_close(out, expected)
    assert_close(lse, plain + term)
    for got, want in zip(gradients_of(lse.sum(), q, k), gradients_of(plain.sum(), q, k)):
        assert_close(got, want, factor=3)


def test_packed_forms_agree_with_the_unpacked_one_values_and_gradients():
    lengths = [6, 0, 9]
    cu = cumulative(lengths)
    qkv = randn(15, 3, 4, 8, grad=True)
    out = fa.flash_attn_varlen_qkvpacked_func(qkv, cu, 9, causal=True)
    expected, _ = packed(*qkv.unbind(1), cu, cu, causal=True)
    assert_close(out, expected)
    assert_close(gradients_of(out.square().sum(), qkv)[0], gradients_of(expected.square().sum(), qkv)[0], factor=3)
    with torch.no_grad():
        assert torch.equal(fa.flash_attn_varlen_qkvpacked_func(qkv, cu, 9, causal=True), out)

    q, kv, cu_q = randn(7, 4, 8, grad=True), randn(15, 2, 2, 8, grad=True), cumulative([2, 1, 4])
    out = fa.flash_attn_varlen_kvpacked_func(q, kv, cu_q, cu, 4, 9, window_size=(3, 1))
    expected, _ = packed(q, *kv.unbind(1), cu_q, cu, window=(3, 1))
    assert_close(out, expected)
    for got, want in zip(gradients_of(out.square().sum(), q, kv), gradients_of(expected.square().sum(), q, kv)):
        assert_close(got, want, factor=3)
    with torch.no_grad():
        assert torch.equal(fa.flash_attn_varlen_kvpacked_func(q, kv, cu_q, cu, 4, 9, window_size=(3, 1)), out)


@pytest.mark.parametrize("page_size", [1, 3, 16, 256])
def test_block_table_of_any_page_size_takes_lengths_from_cu_seqlens_k(page_size):
    lengths_q, lengths_k = [3, 1, 4], [7, 20, 4]
    k, v = randn(3, 20, 2, 8, seed=2), randn(3, 20, 2, 8, seed=3)
    (k_pages, table), (v_pages, _) = paged_copy(k, lengths_k, page_size), paged_copy(v, lengths_k, page_size)
    cu_q, cu_k = cumulative(lengths_q), cumulative(lengths_k)
    q = randn(8, 4, 8, seed=1)
    out, lse, _ = fa.flash_attn_varlen_func(
        q, k_pages, v_pages, cu_q, cu_k, 4, 20, causal=True, block_table=table, return_attn_probs=True
    )
    flat = [torch.cat([x[b, :n] for b, n in enumerate(lengths_k)]) for x in (k, v)]
    expected, expected_lse = packed(q, *flat, cu_q, cu_k, causal=True)
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))


def test_block_table_has_no_gradient_and_says_so():
    k = randn(2, 8, 2, 8)
    pages, table = paged_copy(k, [8, 8], 4)
    q = randn(4, 2, 8, grad=True)
    out = fa.flash_attn_varlen_func(q, pages, pages, cumulative([2, 2]), cumulative([8, 8]), 2, 8, block_table=table)
    with pytest.raises(regard.Error) as caught:
        out.sum().backward()
    assert caught.value.field == "block_table"


def test_int64_index_tensors_are_taken():
    q, k, v, cu_q, cu_k, max_q, max_k = case([4, 2], [5, 5])
    out = fa.flash_attn_varlen_func(q, k, v, cu_q.long(), cu_k.long(), max_q, max_k)
    assert_close(out, packed(q, k, v, cu_q, cu_k)[0])
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_varlen_func(q, k, v, cu_q.float(), cu_k, max_q, max_k)
    assert caught.value.field == "cu_seqlens_q"


def test_rows_that_no_sequence_owns_are_zero_with_zero_gradients():
    q, k, v = (randn(9, 2, 8, grad=True, seed=s) for s in (1, 2, 3))
    cu = cumulative([3, 4])
    out = fa.flash_attn_varlen_func(q, k, v, cu, cu, 4, 4)
    assert (out[7:] == 0).all()
    for grad in gradients_of(out.square().sum() + out.sum(), q, k, v):
        assert (grad[7:] == 0).all() and (grad[:7] != 0).any()


def test_private_forward_takes_used_lengths_and_left_padding():
    lengths_q, lengths_k = [3, 2], [9, 7]
    q, k, v, cu_q, cu_k, max_q, max_k = case(lengths_q, lengths_k, grad=False)
    used, pad = [6, 7], [2, 0]
    slopes = randn(4, seed=8).abs()
    out, lse, empty, rng_state = interface._flash_attn_varlen_forward(
        q, k, v, cu_q, cu_k, max_q, max_k, 0.0, 0.3, True, alibi_slopes=slopes, leftpad_k=torch.tensor(pad),
        seqused_k=torch.tensor(used), zero_tensors=True, num_splits=3,
    )
    expected, plain = packed(
        q, k, v, cu_q, cu_k, used_k=used, leftpad=pad, scale=0.3, causal=True, slopes=slopes
    )
    term = torch.cat(
        [slopes[:, None] * (torch.arange(n) + used[b] - n - pad[b]) for b, n in enumerate(lengths_q)], 1
    )
    assert_close(out, expected)
    assert_close(lse, fa2_lse(plain + term))
    assert empty.shape == (0,) and rng_state.shape == (2,) and rng_state.dtype == torch.int64


def test_autograd_functions_take_the_positional_arguments_of_the_public_ones():
    q, k, v, cu_q, cu_k, max_q, max_k = case([4, 4], [4, 4], hq=2)
    expected, _ = packed(q, k, v, cu_q, cu_k, causal=True)
    tail = (0.0, None, True, (-1, -1), 0.0, None, False, False)
    lengths = (cu_q, cu_k, max_q, max_k)
    assert_close(interface.FlashAttnVarlenFunc.apply(q, k, v, *lengths, *tail, None, True), expected)
    kv = torch.stack((k, v), 1)
    assert_close(interface.FlashAttnVarlenKVPackedFunc.apply(q, kv, *lengths, *tail, True), expected)
    qkv = torch.stack((q, k, v), 1)
    assert_close(interface.FlashAttnVarlenQKVPackedFunc.apply(qkv, cu_q, max_q, *tail, True), expected)


def test_equal_lengths_give_the_dense_results():
    q, k, v = (randn(2, 6, h, 8, seed=s) for h, s in ((4, 1), (2, 2), (2, 3)))
    cu = cumulative([6, 6])
    out = fa.flash_attn_varlen_func(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), cu, cu, 6, 6, causal=True)
    assert_close(out.view(2, 6, 4, 8), dense(q, k, v, causal=True)[0])
    assert torch.equal(out.view(2, 6, 4, 8), fa.flash_attn_func(q, k, v, causal=True))
