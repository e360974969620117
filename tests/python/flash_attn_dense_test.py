"""flash_attn_func and its packed forms against plain torch in f64: every argument, values and gradients."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import assert_close, dense, fa2_lse, gradients_of, randn  # noqa: E402
from regard import flash_attn as fa  # noqa: E402
from regard.flash_attn import cute  # noqa: E402
from regard.flash_attn import flash_attn_interface as interface  # noqa: E402
from regard.flash_attn.fa3 import flash_attn_interface as fa3  # noqa: E402

CU = torch.tensor([0, 9], dtype=torch.int32)

OPTIONS = [
    {},
    {"causal": True},
    {"softmax_scale": 0.37},
    {"softmax_scale": -0.2, "causal": True},
    {"window_size": (3, 2)},
    {"window_size": (2, -1)},
    {"window_size": (-1, 1)},
    {"window_size": (4, 0), "causal": True},
    {"window_size": (4, 3), "causal": True},
    {"softcap": 1.5},
    {"softcap": -1.0},
    {"softcap": 2.0, "causal": True, "window_size": (5, -1)},
]
SHAPES = [  # B, Sq, Skv, Hq, Hkv, D
    (2, 5, 7, 4, 2, 8),
    (1, 9, 4, 3, 3, 17),
    (2, 1, 13, 6, 1, 32),
    (3, 16, 16, 2, 2, 5),
]


def reference_options(options):
    names = {"softmax_scale": "scale", "window_size": "window", "causal": "causal", "softcap": "softcap"}
    return {names[name]: value for name, value in options.items()}


def tensors(shape, dtype=torch.float32, grad=False):
    b, sq, skv, hq, hkv, d = shape
    return (
        randn(b, sq, hq, d, dtype=dtype, grad=grad, seed=1),
        randn(b, skv, hkv, d, dtype=dtype, grad=grad, seed=2),
        randn(b, skv, hkv, d, dtype=dtype, grad=grad, seed=3),
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_lse_and_gradients_are_the_references(shape, options):
    q, k, v = tensors(shape, grad=True)
    out, lse, probabilities = fa.flash_attn_func(q, k, v, return_attn_probs=True, **options)
    expected, expected_lse = dense(q, k, v, **reference_options(options))
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))
    assert probabilities.shape == (0,)
    dout = randn(*out.shape, seed=4)
    actual = gradients_of((out * dout).sum(), q, k, v)
    for got, want in zip(actual, gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_types_keep_their_type_in_results_and_gradients(dtype):
    q, k, v = tensors((2, 12, 19, 4, 2, 64), dtype, grad=True)
    out = fa.flash_attn_func(q, k, v, causal=True)
    expected, _ = dense(q, k, v, causal=True)
    assert out.dtype == dtype
    assert_close(out, expected, dtype)
    grads = gradients_of(out.float().sum(), q, k, v)
    assert [g.dtype for g in grads] == [dtype] * 3
    for got, want in zip(grads, gradients_of(expected.sum(), q, k, v)):
        assert_close(got, want, dtype, factor=3)


@pytest.mark.parametrize("slopes_of", [lambda b, h: randn(h, seed=9).abs(), lambda b, h: randn(b, h, seed=9).abs()])
@pytest.mark.parametrize("options", [{}, {"window_size": (3, 3)}, {"causal": True, "window_size": (4, 0)}], ids=str)
def test_alibi_slopes_per_head_or_per_sequence_and_head(slopes_of, options):
    q, k, v = tensors((2, 6, 9, 4, 2, 8), grad=True)
    slopes = slopes_of(2, 4)
    out, lse, _ = fa.flash_attn_func(q, k, v, alibi_slopes=slopes, return_attn_probs=True, **options)
    expected, expected_lse = dense(q, k, v, slopes=slopes, **reference_options(options))
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))
    for got, want in zip(gradients_of(out.square().sum(), q, k, v), gradients_of(expected.square().sum(), q, k, v)):
        assert_close(got, want, factor=3)


def test_lse_of_causal_alibi_carries_slope_times_position():
    q, k, v = tensors((2, 5, 8, 2, 2, 8))
    slopes = torch.tensor([0.5, 0.25])
    _, lse, _ = fa.flash_attn_func(q, k, v, causal=True, alibi_slopes=slopes, return_attn_probs=True)
    _, plain = dense(q, k, v, causal=True, slopes=slopes)
    term = slopes[None, :, None] * (torch.arange(5) + 3)
    assert_close(lse, plain + term)
    _, windowed, _ = fa.flash_attn_func(q, k, v, alibi_slopes=slopes, window_size=(-1, 0), return_attn_probs=True)
    assert_close(windowed, plain + term)
    _, wide, _ = fa.flash_attn_func(
        q, k, v, causal=True, alibi_slopes=slopes, window_size=(8, 0), return_attn_probs=True
    )
    assert_close(wide, plain + term)
    _, narrow, _ = fa.flash_attn_func(
        q, k, v, causal=True, alibi_slopes=slopes, window_size=(7, 0), return_attn_probs=True
    )
    assert_close(narrow, plain)


def test_lse_of_a_row_without_keys_is_plus_infinity_and_its_output_zero():
    q, k, v = tensors((1, 5, 2, 2, 1, 8), grad=True)
    out, lse, _ = fa.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    assert torch.isposinf(lse[0, :, :3]).all() and torch.isfinite(lse[0, :, 3:]).all()
    assert (out[0, :3] == 0).all()
    for grad in gradients_of(out.sum() + lse[torch.isfinite(lse)].sum(), q, k, v):
        assert torch.isfinite(grad).all()


def test_gradient_of_lse_is_honoured_and_nothing_of_the_dialect_leaks_into_it():
    q, k, v = tensors((2, 6, 4, 2, 1, 8), grad=True)
    slopes = torch.tensor([0.5, 0.25])
    out, lse, _ = fa.flash_attn_func(q, k, v, causal=True, alibi_slopes=slopes, return_attn_probs=True)
    expected, expected_lse = dense(q, k, v, causal=True, slopes=slopes)
    seen = torch.isfinite(lse)
    weights = randn(*lse.shape, seed=5)
    actual = gradients_of(out.sum() + torch.where(seen, lse * weights, 0.0).sum(), q, k, v)
    wanted = gradients_of(expected.sum() + (expected_lse[seen] * weights[seen]).sum(), q, k, v)
    for got, want in zip(actual, wanted):
        assert_close(got, want, factor=3)
    # A loss that looks at the infinite entries too gets finite gradients.
    out, lse, _ = fa.flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    for grad in gradients_of(out.sum() + torch.exp(-lse).sum(), q, k, v):
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("options", [{}, {"causal": True, "window_size": (6, 0), "softcap": 3.0}], ids=str)
def test_packed_forms_agree_with_the_unpacked_one_values_and_gradients(options):
    qkv = randn(2, 9, 3, 4, 16, grad=True)
    out = fa.flash_attn_qkvpacked_func(qkv, **options)
    expected, lse = dense(*qkv.unbind(2), **reference_options(options))
    assert_close(out, expected)
    dout = randn(*out.shape, seed=4)
    assert_close(gradients_of((out * dout).sum(), qkv)[0], gradients_of((expected * dout).sum(), qkv)[0], factor=3)
    with torch.no_grad():
        plain, plain_lse, empty = fa.flash_attn_qkvpacked_func(qkv, return_attn_probs=True, **options)
    assert torch.equal(plain, out) and empty.shape == (0,)
    assert_close(plain_lse, fa2_lse(lse))

    q, kv = randn(2, 5, 4, 16, grad=True), randn(2, 9, 2, 2, 16, grad=True)
    out = fa.flash_attn_kvpacked_func(q, kv, **options)
    expected, _ = dense(q, *kv.unbind(2), **reference_options(options))
    assert_close(out, expected)
    dout = randn(*out.shape, seed=4)
    for got, want in zip(gradients_of((out * dout).sum(), q, kv), gradients_of((expected * dout).sum(), q, kv)):
        assert_close(got, want, factor=3)
    with torch.no_grad():
        assert torch.equal(fa.flash_attn_kvpacked_func(q, kv, **options), out)


def test_values_may_have_a_head_dim_of_their_own():
    q, k, v = randn(2, 5, 4, 24, grad=True), randn(2, 6, 2, 24, grad=True), randn(2, 6, 2, 9, grad=True)
    out = fa.flash_attn_func(q, k, v, causal=True)
    expected, _ = dense(q, k, v, causal=True)
    assert_close(out, expected)
    for got, want in zip(gradients_of(out.square().sum(), q, k, v), gradients_of(expected.square().sum(), q, k, v)):
        assert_close(got, want, factor=3)


@pytest.mark.parametrize("shape", [(0, 5, 7, 2, 1, 8), (2, 0, 7, 2, 1, 8), (2, 5, 0, 2, 1, 8)], ids=str)
def test_empty_batches_queries_and_keys(shape):
    q, k, v = tensors(shape, grad=True)
    out, lse, _ = fa.flash_attn_func(q, k, v, return_attn_probs=True)
    assert out.shape == q.shape and (out == 0).all()
    assert lse.shape == (shape[0], shape[3], shape[1]) and torch.isposinf(lse).all()
    assert all((g == 0).all() for g in gradients_of(out.sum(), q, k, v))


def test_strided_inputs_and_expanded_gradients():
    base = randn(2, 4, 6, 8, seed=6).requires_grad_()
    q = base.transpose(1, 2)
    assert_close(fa.flash_attn_func(q, q, q), dense(q, q, q)[0])
    strided = randn(2, 6, 8, 4, seed=7).transpose(2, 3)
    assert strided.stride(-1) != 1
    assert_close(fa.flash_attn_func(strided, strided, strided), dense(strided, strided, strided)[0])
    out = fa.flash_attn_func(q, q, q)
    got = gradients_of(out.sum(), base)[0]  # autograd hands over an expanded scalar
    assert_close(got, gradients_of(dense(q, q, q)[0].sum(), base)[0], factor=3)


@pytest.mark.parametrize("window", [(3, 2), [3, 2], torch.tensor([3, 2])], ids=["tuple", "list", "tensor"])
def test_window_size_may_be_a_tuple_a_list_or_a_tensor(window):
    q, k, v = tensors((1, 6, 8, 2, 1, 8))
    assert_close(fa.flash_attn_func(q, k, v, window_size=window), dense(q, k, v, window=(3, 2))[0])


@pytest.mark.parametrize("window", [(1, -1), (-1, 3), (2, 4)])
def test_windows_follow_the_position_even_with_more_queries_than_keys(window):
    # flash-attn 2 cuts an open right side to Skv here, and drops one that is Skv or wider.
    q, k, v = tensors((1, 9, 3, 2, 1, 8))
    out, lse, _ = fa.flash_attn_func(q, k, v, window_size=window, return_attn_probs=True)
    expected, expected_lse = dense(q, k, v, window=window)
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))
    empty = torch.isposinf(lse[0, 0])
    assert empty.sum() == (0 if window[1] < 0 else 6 - window[1])


@pytest.mark.parametrize("dim", [1, 257, 320, 512])
def test_head_dims_that_flash_attn_refuses_just_work(dim):
    q, k, v = tensors((1, 4, 5, 2, 1, dim), grad=True)
    out = fa.flash_attn_func(q, k, v, causal=True)
    expected, _ = dense(q, k, v, causal=True)
    assert_close(out, expected)
    for got, want in zip(gradients_of(out.sum(), q, k, v), gradients_of(expected.sum(), q, k, v)):
        assert_close(got, want, factor=3)


def test_deterministic_changes_no_bit_and_results_repeat():
    q, k, v = tensors((2, 33, 40, 4, 2, 16), grad=True)
    runs = []
    for deterministic in (False, True, True):
        out = fa.flash_attn_func(q, k, v, causal=True, deterministic=deterministic)
        runs.append([out, *gradients_of(out.square().sum(), q, k, v)])
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run))


def test_no_graph_is_recorded_without_a_gradient_to_give():
    q, k, v = tensors((1, 4, 4, 2, 1, 8), grad=True)
    with torch.no_grad():
        assert not fa.flash_attn_func(q, k, v).requires_grad
    assert not fa.flash_attn_func(q.detach(), k.detach(), v.detach()).requires_grad
    assert fa.flash_attn_func(q.detach(), k, v.detach()).requires_grad


def test_autograd_functions_take_the_positional_arguments_of_the_public_ones():
    q, k, v = tensors((1, 5, 5, 2, 2, 8), grad=True)
    expected, _ = dense(q, k, v, causal=True)
    tail = (0.0, None, True, (-1, -1), 0.0, None, False, False, True)
    assert_close(interface.FlashAttnFunc.apply(q, k, v, *tail), expected)
    assert_close(interface.FlashAttnKVPackedFunc.apply(q, torch.stack((k, v), 2), *tail), expected)
    assert_close(interface.FlashAttnQKVPackedFunc.apply(torch.stack((q, k, v), 2), *tail), expected)
    assert issubclass(interface.FlashAttnFunc, torch.autograd.Function)


def test_second_derivatives_are_refused():
    q, k, v = tensors((1, 3, 3, 1, 1, 4), grad=True)
    (dq,) = torch.autograd.grad(fa.flash_attn_func(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dq.sum().backward()


def test_bad_arguments_name_field_value_and_expectation():
    q, k, v = tensors((1, 4, 4, 3, 2, 8))
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_func(q, k, v)
    assert isinstance(caught.value, ValueError) and caught.value.field and caught.value.expected
    q, k, v = tensors((1, 4, 4, 2, 2, 8))
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_func(q, k, v, window_size=(1, 2, 3))
    assert caught.value.field == "window_size"
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_func(q, k, v, dropout_p=1.5)
    assert caught.value.field == "dropout_p"
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_qkvpacked_func(q)
    assert caught.value.field == "qkv" and "3" in caught.value.expected
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_kvpacked_func(q, torch.stack((k, v, v), 2))
    assert caught.value.field == "kv"


@pytest.mark.parametrize(
    "field, call",
    [
        ("cu_seqlens_q", lambda q: fa.flash_attn_varlen_func(q, q, q, [0, 4], CU, 4, 4)),
        ("cu_seqlens_k[1]", lambda q: fa.flash_attn_varlen_func(q, q, q, torch.tensor([0, 4]), CU, 4, 4)),
        ("cache_leftpad[0]", lambda q: fa.flash_attn_with_kvcache(
            q[None], q[None].clone(), q[None].clone(), cache_seqlens=2, cache_leftpad=torch.tensor([3]))),
        ("k_cache", lambda q: fa.flash_attn_with_kvcache(q[None], q, q, cache_seqlens=2)),
        ("s_aux.shape[0]", lambda q: fa3.flash_attn_func(q[None], q[None], q[None], s_aux=torch.zeros(5))),
        ("page_table[0][0]", lambda q: fa3.flash_attn_with_kvcache(
            q[None], q[None], q[None], cache_seqlens=2, page_table=torch.tensor([[7]]))),
        ("learnable_sink.shape[0]", lambda q: cute.flash_attn_func(q[None], q[None], q[None],
                                                                   learnable_sink=torch.zeros(5))),
    ],
)
def test_errors_of_the_core_speak_of_the_callers_arguments(field, call):
    with pytest.raises(regard.Error) as caught:
        call(randn(4, 2, 8))
    assert caught.value.field == field, str(caught.value)
    assert str(caught.value).startswith(field)


def test_large_scores_stay_finite():
    q, k, v = (x * 30 for x in tensors((1, 8, 8, 2, 1, 16)))
    out, lse, _ = fa.flash_attn_func(q, k, v, return_attn_probs=True)
    scores = torch.einsum("bihd,bjd->bhij", q.double(), k[:, :, 0].double()) / math.sqrt(16)
    assert_close(lse, torch.logsumexp(scores, -1), factor=100)
    assert torch.isfinite(out).all()
