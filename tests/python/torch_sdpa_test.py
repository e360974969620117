"""regard.torch.scaled_dot_product_attention against torch's own, on the CPU."""
from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch.nn.attention.bias import causal_lower_right, causal_upper_left  # noqa: E402

import regard  # noqa: E402
import regard.torch as rt  # noqa: E402
from torch_support import GRAD_BOUND, OUT_BOUND, worst  # noqa: E402

sdpa = rt.scaled_dot_product_attention
own = F.scaled_dot_product_attention


def _inputs(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, grad: bool = False) -> list[Any]:
    g = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=g).to(dtype).requires_grad_(grad) for shape in shapes]


def _same(q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> None:
    got = sdpa(q, k, v, *args, **kwargs)
    reference = own(q.double(), k.double(), v.double(), *(
        a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args), **kwargs)
    assert got.shape == reference.shape and got.dtype == q.dtype
    assert worst(got, reference) < OUT_BOUND[q.dtype]


SHAPES = {
    "four dims": ((2, 4, 9, 16), (2, 4, 13, 16), (2, 4, 13, 24)),
    "three dims": ((4, 9, 16), (4, 13, 16), (4, 13, 16)),
    "two dims": ((9, 16), (13, 16), (13, 16)),
    "five dims": ((2, 3, 4, 9, 16), (2, 3, 4, 13, 16), (2, 3, 4, 13, 16)),
    "batch of one query set": ((1, 4, 9, 16), (3, 4, 13, 16), (3, 4, 13, 16)),
    "one kv head": ((2, 4, 9, 16), (2, 1, 13, 16), (2, 1, 13, 16)),
    "one query head": ((2, 1, 9, 16), (2, 4, 13, 16), (2, 4, 13, 16)),
    "one key head and several of v": ((2, 4, 9, 16), (2, 1, 13, 16), (2, 4, 13, 16)),
    "leading dims that broadcast": ((2, 1, 4, 9, 16), (1, 3, 4, 13, 16), (3, 4, 13, 16)),
    "one row": ((2, 4, 1, 16), (2, 4, 33, 16), (2, 4, 33, 16)),
    "more rows than keys": ((1, 2, 21, 16), (1, 2, 5, 16), (1, 2, 5, 16)),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_in_every_shape_causal_from_the_top_left(shape: str, causal: bool) -> None:
    _same(*_inputs(*SHAPES[shape]), None, 0.0, causal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [None, 0.25])
def test_equals_torch_in_every_type_and_scale_and_with_grouped_heads(dtype: torch.dtype, scale: float | None) -> None:
    q, k, v = _inputs((2, 6, 17, 32), (2, 2, 17, 32), (2, 2, 17, 32), dtype=dtype)
    _same(q, k, v, is_causal=True, scale=scale, enable_gqa=True)


def test_a_negative_scale_turns_the_scores_around() -> None:
    # torch itself gives nan here where it is causal.
    q, k, v = _inputs((2, 4, 9, 16), (2, 4, 9, 16), (2, 4, 9, 16))
    assert worst(sdpa(q, k, v, is_causal=True, scale=-0.5), own(-q, k, v, is_causal=True, scale=0.5)) < 2e-5


MASKS = [(17, 23), (1, 23), (6, 17, 23), (1, 17, 23), (2, 1, 17, 23), (2, 6, 17, 23), (2, 1, 1, 23), (1, 6, 17, 1)]


@pytest.mark.parametrize("boolean", [False, True])
@pytest.mark.parametrize("shape", MASKS)
def test_masks_of_every_shape_equal_torch(shape: tuple[int, ...], boolean: bool) -> None:
    q, k, v = _inputs((2, 6, 17, 16), (2, 6, 23, 16), (2, 6, 23, 16))
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    _same(q, k, v, mask > -0.5 if boolean else mask)


def test_masks_over_five_dims_and_three_dims_equal_torch() -> None:
    five = _inputs((2, 3, 4, 5, 16), (2, 3, 4, 7, 16), (2, 3, 4, 7, 16))
    for shape in ((5, 7), (4, 5, 7), (3, 1, 5, 7), (2, 1, 4, 5, 7), (2, 3, 4, 5, 7)):
        _same(*five, torch.randn(shape))
    three = _inputs((4, 5, 16), (4, 7, 16), (4, 7, 16))
    for shape in ((5, 7), (4, 5, 7), (1, 1, 7)):
        _same(*three, torch.randn(shape) > 0)


def test_masks_that_are_views_without_a_contiguous_last_dim_equal_torch() -> None:
    q, k, v = _inputs((2, 4, 9, 16), (2, 4, 13, 16), (2, 4, 13, 16))
    _same(q, k, v, torch.randn(2, 4, 13, 9).transpose(-1, -2))
    _same(q, k, v, torch.randn(2, 1, 9, 1).expand(2, 4, 9, 13))


def test_mask_types_follow_torch_and_integers_are_refused() -> None:
    q, k, v = _inputs((1, 2, 5, 16), (1, 2, 7, 16), (1, 2, 7, 16), dtype=torch.bfloat16)
    mask = torch.randn(5, 7)
    exact = own(q.double(), k.double(), v.double(), mask.double())
    assert worst(sdpa(q, k, v, mask), exact) < OUT_BOUND[torch.bfloat16]
    assert worst(sdpa(q, k, v, mask.bfloat16()), exact) < OUT_BOUND[torch.bfloat16]
    assert worst(sdpa(q, k, v, mask.half()), exact) < OUT_BOUND[torch.bfloat16]
    with pytest.raises(regard.Error, match="attn_mask"):
        sdpa(q, k, v, torch.ones(5, 7, dtype=torch.int32))


def test_rows_that_see_nothing_are_zero() -> None:
    q, k, v = _inputs((1, 2, 4, 16), (1, 2, 4, 16), (1, 2, 4, 16))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    for m in (mask, torch.zeros(4, 4).masked_fill(~mask, float("-inf"))):
        assert torch.count_nonzero(sdpa(q, k, v, m)[:, :, 1]) == 0


def test_the_smallest_finite_number_in_a_mask_is_added_not_taken_for_minus_infinity() -> None:
    q, k, v = _inputs((1, 2, 3, 16), (1, 2, 5, 16), (1, 2, 5, 16))
    mask = torch.full((3, 5), torch.finfo(torch.float32).min)
    _same(q, k, v, mask)


@pytest.mark.parametrize(("causal", "mask_grad"), [(False, False), (True, False), (False, True)])
def test_gradients_equal_torchs_the_masks_own_included(causal: bool, mask_grad: bool) -> None:
    tensors = _inputs((2, 4, 9, 16), (2, 2, 13, 16), (2, 2, 13, 16), grad=True)
    extra = [torch.randn(1, 4, 9, 13, requires_grad=True)] if mask_grad else []
    mask = extra[0] if mask_grad else None
    weights = torch.randn(2, 4, 9, 16)
    grads = [torch.autograd.grad((f(*tensors, mask, is_causal=causal, enable_gqa=True) * weights).sum(),
                                 [*tensors, *extra]) for f in (sdpa, own)]
    for g, e in zip(*grads):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


def test_gradients_of_broadcast_leading_dims_are_summed() -> None:
    tensors = _inputs((1, 4, 9, 16), (3, 4, 13, 16), (3, 4, 13, 16), grad=True)
    grads = [torch.autograd.grad(f(*tensors).sin().sum(), tensors) for f in (sdpa, own)]
    for g, e in zip(*grads):
        assert g.shape == e.shape and worst(g, e) < GRAD_BOUND[torch.float32]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_out_has_the_stride_order_of_the_query_as_torchs_has(order: tuple[int, ...]) -> None:
    q, k, v = _inputs((2, 4, 9, 16), (2, 4, 9, 16), (2, 4, 9, 16))
    back = [order.index(d) for d in range(3)]
    q, k, v = (t.permute(*order, 3).contiguous().permute(*back, 3) for t in (q, k, v))
    out = sdpa(q, k, v)
    assert out.permute(*order, 3).is_contiguous()
    if order == (0, 2, 1):  # what a model's view and transpose make
        assert out.stride() == own(q, k, v).stride()
        assert out.transpose(1, 2).reshape(2, 9, 64).data_ptr() == out.data_ptr()


@pytest.mark.parametrize("lengths", [(9, 9), (5, 9), (1, 9)])
def test_causal_biases_are_understood_at_both_corners(lengths: tuple[int, int]) -> None:
    rows, keys = lengths
    q, k, v = _inputs((2, 4, rows, 16), (2, 4, keys, 16), (2, 4, keys, 16))
    for bias in (causal_upper_left(rows, keys), causal_lower_right(rows, keys)):
        want = own(q, k, v, bias._materialize())
        assert worst(sdpa(q, k, v, bias), want) < OUT_BOUND[torch.float32]
    with pytest.raises(regard.Error, match="is_causal"):
        sdpa(q, k, v, causal_upper_left(rows, keys), is_causal=True)


def test_dropout_repeats_under_manual_seed_and_keeps_the_mean() -> None:
    q, k, v = _inputs((2, 4, 64, 16), (2, 4, 64, 16), (2, 4, 64, 16))
    torch.manual_seed(1)
    first = sdpa(q, k, v, dropout_p=0.5)
    second = sdpa(q, k, v, dropout_p=0.5)
    torch.manual_seed(1)
    assert torch.equal(first, sdpa(q, k, v, dropout_p=0.5)) and not torch.equal(first, second)
    mean = torch.stack([sdpa(q, k, v, dropout_p=0.5) for _ in range(200)]).mean(0)
    assert (mean - sdpa(q, k, v)).abs().mean() < 0.03
    assert torch.count_nonzero(sdpa(q, k, v, dropout_p=1.0)) == 0


def test_scale_and_enable_gqa_are_keyword_only_as_in_torch() -> None:
    q, k, v = _inputs((1, 2, 5, 16), (1, 2, 5, 16), (1, 2, 5, 16))
    with pytest.raises(TypeError):
        sdpa(q, k, v, None, 0.0, False, 0.5)


@pytest.mark.parametrize("shape", [(0, 2, 5, 7), (2, 2, 0, 7), (2, 2, 5, 0)])
def test_empty_dims_give_empty_or_zero_results(shape: tuple[int, int, int, int]) -> None:
    batch, heads, rows, keys = shape
    q, k, v = _inputs((batch, heads, rows, 8), (batch, heads, keys, 8), (batch, heads, keys, 8))
    out = sdpa(q, k, v)
    assert out.shape == q.shape and torch.count_nonzero(out) == 0


def test_wrong_arguments_raise_errors_that_name_the_field() -> None:
    q, k, v = _inputs((1, 4, 5, 16), (1, 2, 5, 16), (1, 2, 5, 16))
    with pytest.raises(regard.Error, match="enable_gqa"):
        sdpa(q, k, v)
    with pytest.raises(regard.Error, match="heads"):
        sdpa(*_inputs((1, 3, 5, 16), (1, 2, 5, 16), (1, 2, 5, 16)), enable_gqa=True)
    with pytest.raises(regard.Error, match="is_causal"):
        sdpa(q, q, q, torch.ones(5, 5, dtype=torch.bool), is_causal=True)
    with pytest.raises(regard.Error, match="attn_mask"):
        sdpa(q, q, q, torch.ones(5))
    with pytest.raises(regard.Error, match="batch"):
        sdpa(*_inputs((2, 4, 5, 16), (3, 4, 5, 16), (3, 4, 5, 16)))
    with pytest.raises(regard.Error):
        sdpa(q.double(), q.double(), q.double())
    with pytest.raises(regard.Error):
        sdpa(q, q, q, torch.zeros(3, 3))
