"""flash_attn.cute, version 4's two functions: sinks, open windows, (out, lse) always."""

from __future__ import annotations

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
)
from regard.flash_attn import cute  # noqa: E402


def tensors(b=2, sq=5, skv=9, hq=4, hkv=2, d=16, dv=None, dtype=torch.float32, grad=True):
    return (
        randn(b, sq, hq, d, dtype=dtype, grad=grad, seed=1), randn(b, skv, hkv, d, dtype=dtype, grad=grad, seed=2),
        randn(b, skv, hkv, dv or d, dtype=dtype, grad=grad, seed=3),
    )


@pytest.mark.parametrize(
    "options, reference",
    [
        ({}, {}),
        ({"causal": True, "softmax_scale": 0.2}, {"causal": True, "scale": 0.2}),
        ({"window_size": (None, None)}, {}),
        ({"window_size": (2, None)}, {"window": (2, -1)}),
        ({"window_size": (None, 1), "softcap": 1.5}, {"window": (-1, 1), "softcap": 1.5}),
        ({"window_size": (3, 0), "num_splits": 2, "pack_gqa": False, "deterministic": True}, {"window": (3, 0)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_sink", [False, True])
def test_output_lse_and_gradients(with_sink, options, reference):
    q, k, v = tensors(dv=12)
    sink = randn(4, grad=True, seed=5)
    given = {"learnable_sink": sink} if with_sink else {}
    out, lse = cute.flash_attn_func(q, k, v, **options, **given)
    expected, expected_lse = dense(q, k, v, sink=sink if with_sink else None, **reference)
    assert_close(out, expected)
    assert_close(lse, expected_lse)
    dout, dlse = randn(*out.shape, seed=6), randn(*lse.shape, seed=7)
    inputs = (q, k, v, sink) if with_sink else (q, k, v)
    actual = gradients_of((out * dout).sum() + (lse * dlse).sum(), *inputs)
    for got, want in zip(actual, gradients_of((expected * dout).sum() + (expected_lse * dlse).sum(), *inputs)):
        assert_close(got, want, factor=3)


def test_lse_is_none_unless_asked_for_or_needed_for_a_gradient():
    q, k, v = tensors(grad=False)
    assert cute.flash_attn_func(q, k, v)[1] is None
    assert cute.flash_attn_func(q, k, v, return_lse=True)[1].shape == (2, 4, 5)
    assert cute.flash_attn_func(q.requires_grad_(), k, v)[1].shape == (2, 4, 5)


def test_a_row_with_a_sink_and_no_key_has_the_sink_as_lse():
    q, k, v = tensors(sq=4, skv=1, grad=False)
    sink = randn(4, seed=5)
    out, lse = cute.flash_attn_func(q, k, v, causal=True, learnable_sink=sink, return_lse=True)
    assert (out[:, :3] == 0).all()
    assert_close(lse[:, :, 0], sink.expand(2, 4))
    assert torch.isneginf(cute.flash_attn_func(q, k, v, causal=True, return_lse=True)[1][:, :, :3]).all()


def test_varlen_packed_with_used_lengths_and_sinks():
    cu_q, cu_k, used_q, used_k = cumulative([4, 3]), cumulative([6, 5]), [4, 2], [6, 1]
    q, k, v = (randn(n, h, 16, grad=True, seed=s) for n, h, s in ((7, 4, 1), (11, 2, 2), (11, 2, 3)))
    sink = randn(4, grad=True, seed=5)
    out, lse = cute.flash_attn_varlen_func(
        q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, max_seqlen_q=4, max_seqlen_k=6, seqused_q=torch.tensor(used_q),
        seqused_k=torch.tensor(used_k), causal=True, window_size=(3, None), learnable_sink=sink, return_lse=True,
    )
    expected, expected_lse = packed(
        q, k, v, cu_q, cu_k, used_q=used_q, used_k=used_k, causal=True, window=(3, -1), sink=sink
    )
    assert_close(out, expected)
    assert_close(lse, expected_lse)
    actual = gradients_of(out.square().sum(), q, k, v, sink)
    for got, want in zip(actual, gradients_of(expected.square().sum(), q, k, v, sink)):
        assert_close(got, want, factor=3)


@pytest.mark.parametrize("packed_q", [False, True])
def test_varlen_over_dense_and_paged_keys(packed_q):
    used = [9, 4]
    q, k, v = tensors(grad=False)
    given, extra = (q.flatten(0, 1), {"cu_seqlens_q": cumulative([5, 5])}) if packed_q else (q, {})
    expected, _ = dense(q, k, v, used_k=used, causal=True)
    seqused = torch.tensor(used, dtype=torch.int32)
    out, _ = cute.flash_attn_varlen_func(given, k, v, seqused_k=seqused, causal=True, **extra)
    assert_close(out.view_as(q), expected)
    (k_pages, pages), (v_pages, _) = paged_copy(k, used, 4), paged_copy(v, used, 4)
    out, lse = cute.flash_attn_varlen_func(
        given, k_pages, v_pages, page_table=pages, seqused_k=seqused, causal=True, return_lse=True, **extra
    )
    assert_close(out.view_as(q), expected)
    assert lse.shape == ((4, 10) if packed_q else (2, 4, 5))
    whole, table = paged_copy(k, [9, 9], 3)
    out, _ = cute.flash_attn_varlen_func(given, whole, whole, page_table=table, **extra)
    assert_close(out.view_as(q), dense(q, k, k)[0])


def test_qv_puts_the_heads_of_the_lse_last():
    q, k, v = tensors(d=8, dv=24, grad=False)
    qv = randn(2, 5, 4, 24, seed=6)
    out, lse = cute.flash_attn_func(q, k, v, qv, causal=True, return_lse=True)
    expected, expected_lse = dense(q, k, v, qv=qv, causal=True)
    assert_close(out, expected)
    assert_close(lse, expected_lse.transpose(1, 2))


@pytest.mark.parametrize("field", ["score_mod", "mask_mod", "block_sparse_tensors", "gather_kv_indices", "aux_tensors"])
def test_programs_for_a_gpu_are_refused_by_name(field):
    q, k, v = tensors(grad=False)
    for function in (cute.flash_attn_func, cute.flash_attn_varlen_func):
        with pytest.raises(regard.Error) as caught:
            function(q, k, v, **{field: (lambda *_: None)})
        assert caught.value.field == field


def test_half_precision_and_gradients_of_a_half_precision_sink():
    q, k, v = tensors(dtype=torch.bfloat16)
    sink = randn(4, dtype=torch.bfloat16, grad=True, seed=5)
    out, _ = cute.flash_attn_func(q, k, v, learnable_sink=sink)
    expected, _ = dense(q, k, v, sink=sink)
    assert_close(out, expected, torch.bfloat16)
    actual = gradients_of(out.float().square().sum(), q, sink)
    assert actual[1].dtype == torch.bfloat16
    for got, want in zip(actual, gradients_of(expected.square().sum(), q, sink)):
        assert_close(got, want, torch.bfloat16, factor=3)


def test_page_table_and_cu_seqlens_k_exclude_each_other():
    q, k, v = tensors(grad=False)
    with pytest.raises(regard.Error) as caught:
        cute.flash_attn_varlen_func(
            q, k, v, cu_seqlens_k=cumulative([9, 9]), page_table=torch.zeros(2, 1, dtype=torch.int32)
        )
    assert caught.value.field == "cu_seqlens_k"
