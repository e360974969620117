"""regard.xformers.memory_efficient_attention against the formula over each bias written out as a matrix."""
from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
import regard.xformers as rx  # noqa: E402
from torch_support import GRAD_BOUND, OUT_BOUND, plain_attention, qkv, worst  # noqa: E402


def _formula(q: Any, k: Any, v: Any, bias: Any, **options: Any) -> Any:
    """(B, M, H, K) attention with a bias or its written-out matrix added."""
    if isinstance(bias, rx.AttentionBias):
        bias = bias.materialize((1, 1, q.shape[1], k.shape[1]))
    if bias is not None:  # rows that see nothing have a gradient of 0 here, where -inf would make it nan
        options["mask"] = ~torch.isneginf(bias)
        bias = torch.where(options["mask"], bias, 0.0)
    return plain_attention(q, k, v, bias=bias, **options)[0]


@pytest.mark.parametrize("lengths", [(9, 9), (5, 13), (1, 13), (13, 5)])
@pytest.mark.parametrize("bias", [None, rx.LowerTriangularMask(), rx.LowerTriangularFromBottomRightMask(),
                                  rx.LowerTriangularFromBottomRightMask().make_local_attention(3)])
def test_dense_biases_equal_their_matrix_in_value_and_gradient(bias: Any, lengths: tuple[int, int]) -> None:
    tensors = qkv(2, *lengths, 4, 4, 16, 24, grad=True)
    out = rx.memory_efficient_attention(*tensors, attn_bias=bias, scale=0.3)
    want = _formula(*tensors, bias, scale=0.3)
    assert out.shape == (2, lengths[0], 4, 24) and worst(out, want) < OUT_BOUND[torch.float32]
    weights = torch.randn(out.shape)
    got = torch.autograd.grad((out * weights).sum(), tensors)
    for g, e in zip(got, torch.autograd.grad((want * weights).sum(), tensors)):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


@pytest.mark.parametrize("shape", [(2, 4, 9, 13), (1, 1, 9, 13), (2, 1, 1, 13), (9, 13)])
@pytest.mark.parametrize("triangular", [False, True])
def test_tensor_biases_are_added_broadcast_and_differentiable(shape: tuple[int, ...], triangular: bool) -> None:
    q, k, v = qkv(2, 9, 13, 4, 4, 16, grad=True)
    bias = torch.randn(shape, requires_grad=True)
    out = rx.memory_efficient_attention(q, k, v, rx.LowerTriangularMask().add_bias(bias) if triangular else bias)
    matrix = bias + rx.LowerTriangularMask().materialize((9, 13)) if triangular else bias
    want = _formula(q, k, v, matrix)
    assert worst(out, want) < OUT_BOUND[torch.float32]
    for g, e in zip(torch.autograd.grad(out.sin().sum(), (q, bias)), torch.autograd.grad(want.sin().sum(), (q, bias))):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


BLOCKS = {
    "full": lambda m: m,
    "causal from the top left": lambda m: m.make_causal(),
    "causal from the bottom right": lambda m: m.make_causal_from_bottomright(),
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("lengths", [((5, 3, 1), None), ((5, 0, 3), (9, 2, 3))])
def test_block_diagonal_biases_equal_their_matrix(kind: str, lengths: Any) -> None:
    bias = BLOCKS[kind](rx.BlockDiagonalMask.from_seqlens(*lengths))
    rows, keys = sum(lengths[0]), sum(lengths[1] or lengths[0])
    tensors = qkv(1, rows, keys, 4, 4, 16, grad=True)
    out = rx.memory_efficient_attention(*tensors, attn_bias=bias)
    want = _formula(*tensors, bias)
    assert out.shape == (1, rows, 4, 16) and worst(out, want) < OUT_BOUND[torch.float32]
    got = torch.autograd.grad(out.sin().sum(), tensors)
    for g, e in zip(got, torch.autograd.grad(want.sin().sum(), tensors)):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


def test_causal_blocks_are_made_directly_too_and_align_at_their_own_corner() -> None:
    bias = rx.BlockDiagonalCausalMask.from_seqlens([2], [3])
    assert type(bias) is rx.BlockDiagonalCausalMask
    assert bias.visible(2, 3).tolist() == [[True, False, False], [True, True, False]]
    right = rx.BlockDiagonalCausalFromBottomRightMask.from_seqlens([2], [3])
    assert right.visible(2, 3).tolist() == [[True, True, False], [True, True, True]]
    with pytest.raises(regard.Error, match="q_seqlen"):
        rx.BlockDiagonalCausalFromBottomRightMask.from_seqlens([4], [3])


def test_tensor_lists_are_packed_attended_and_split_back() -> None:
    parts = [torch.randn(2, 3, 4, 16), torch.randn(1, 6, 4, 16), torch.randn(3, 0, 4, 16), torch.randn(1, 2, 4, 16)]
    bias, x = rx.BlockDiagonalMask.from_tensor_list(parts)
    assert x.shape == (1, 14, 4, 16)
    back = bias.split(x)
    assert all(torch.equal(a, b) for a, b in zip(parts, back))
    outs = bias.split(rx.memory_efficient_attention(x, x, x, attn_bias=bias))
    for part, out in zip(parts, outs):
        assert worst(out, plain_attention(part, part, part)[0]) < OUT_BOUND[torch.float32]


def test_queries_and_keys_of_their_own_lengths_split_apart_separately() -> None:
    queries = [torch.randn(1, n, 2, 16) for n in (3, 1)]
    keys = [torch.randn(1, n, 2, 16) for n in (5, 4)]
    bias, q, k, v = rx.BlockDiagonalMask.from_tensor_lists_qkv(queries, keys, keys)
    assert [t.shape[1] for t in bias.split_queries(q)] == [3, 1] and [t.shape[1] for t in bias.split_kv(k)] == [5, 4]
    assert rx.BlockDiagonalMask.from_tensor_lists_qk(queries, keys)[2].shape == k.shape
    for part, out in zip(queries, bias.split_queries(rx.memory_efficient_attention(q, k, v, bias))):
        assert out.shape == part.shape
    with pytest.raises(regard.Error, match="split_queries"):
        bias.split(q)
    with pytest.raises(regard.Error, match="tensors_k"):
        rx.BlockDiagonalMask.from_tensor_lists_qk(queries, [torch.randn(2, 5, 2, 16), keys[1]])


def test_inputs_without_heads_are_one_head() -> None:
    q, k, v = (torch.randn(3, n, 16) for n in (5, 7, 7))
    bias = torch.randn(3, 5, 7)
    out = rx.memory_efficient_attention(q, k, v, bias)
    want = _formula(*(t.unsqueeze(2) for t in (q, k, v)), bias.unsqueeze(1)).squeeze(2)
    assert out.shape == (3, 5, 16) and worst(out, want) < OUT_BOUND[torch.float32]


@pytest.mark.parametrize("expanded", [False, True])
def test_grouped_inputs_equal_the_formula_in_value_and_gradient(expanded: bool) -> None:
    q = torch.randn(2, 9, 2, 3, 16, requires_grad=True)
    k, v = (torch.randn(2, 9, 2, 1 if expanded else 3, 16, requires_grad=True) for _ in range(2))
    bias = torch.randn(1, 2, 3, 9, 9)
    full = [t.expand(2, 9, 2, 3, 16) for t in (k, v)]
    out = rx.memory_efficient_attention(q, *full, attn_bias=bias)
    want = _formula(q.flatten(2, 3), *(t.flatten(2, 3) for t in full), bias.flatten(1, 2)).unflatten(2, (2, 3))
    assert out.shape == (2, 9, 2, 3, 16) and worst(out, want) < OUT_BOUND[torch.float32]
    got = torch.autograd.grad(out.sin().sum(), (q, k, v))
    for g, e in zip(got, torch.autograd.grad(want.sin().sum(), (q, k, v))):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


def test_grouped_inputs_work_packed_and_causal() -> None:
    bias = rx.BlockDiagonalCausalMask.from_seqlens([4, 5])
    q = torch.randn(1, 9, 2, 3, 16)
    k = torch.randn(1, 9, 2, 1, 16).expand(1, 9, 2, 3, 16)
    out = rx.memory_efficient_attention(q, k, k, attn_bias=bias)
    want = _formula(q.flatten(2, 3), k.flatten(2, 3), k.flatten(2, 3), bias).unflatten(2, (2, 3))
    assert worst(out, want) < OUT_BOUND[torch.float32]


def test_dropout_repeats_under_manual_seed_and_output_dtype_is_kept() -> None:
    q, k, v = qkv(1, 32, 32, 2, 2, 16, dtype=torch.bfloat16)
    torch.manual_seed(4)
    first, second = (rx.memory_efficient_attention(q, k, v, p=0.5) for _ in range(2))
    torch.manual_seed(4)
    assert torch.equal(first, rx.memory_efficient_attention(q, k, v, p=0.5)) and not torch.equal(first, second)
    assert rx.memory_efficient_attention(q, k, v, output_dtype=torch.float32).dtype == torch.float32


def test_biases_of_another_xformers_are_known_by_their_names() -> None:
    class AttentionBias:
        pass

    class LowerTriangularMask(AttentionBias):
        pass

    class SomethingElse(AttentionBias):
        pass

    q, k, v = qkv(1, 5, 5, 2, 2, 16)
    assert torch.equal(rx.memory_efficient_attention(q, k, v, LowerTriangularMask()),
                       rx.memory_efficient_attention(q, k, v, rx.LowerTriangularMask()))
    with pytest.raises(regard.Error, match="SomethingElse"):
        rx.memory_efficient_attention(q, k, v, SomethingElse())


def test_compiles_in_one_graph() -> None:
    torch._dynamo.reset()
    q, k, v = qkv(1, 9, 9, 2, 2, 16)
    blocks = rx.BlockDiagonalCausalMask.from_seqlens([4, 5])

    def model(q: Any, k: Any, v: Any) -> Any:
        dense = rx.memory_efficient_attention(q, k, v, rx.LowerTriangularMask())
        return dense + rx.memory_efficient_attention(q, k, v, blocks)

    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(q, k, v), model(q, k, v))


def test_wrong_shapes_and_biases_are_named() -> None:
    q, k, v = qkv(2, 9, 9, 2, 2, 16)
    blocks = rx.BlockDiagonalMask.from_seqlens([4, 5])
    with pytest.raises(regard.Error, match="batch of 2"):
        rx.memory_efficient_attention(q, k, v, blocks)
    with pytest.raises(regard.Error, match="8 rows"):
        rx.memory_efficient_attention(q[:1, :8], k[:1, :8], v[:1, :8], blocks)
    with pytest.raises(regard.Error, match="query"):
        rx.memory_efficient_attention(q[0, 0], k, v)
    with pytest.raises(regard.Error, match="attn_bias"):
        rx.memory_efficient_attention(q, k, v, "causal")
    with pytest.raises(regard.Error, match="window_size"):
        rx.LowerTriangularFromBottomRightMask().make_local_attention(0)
    with pytest.raises(regard.Error, match="kv_seqlen"):
        rx.BlockDiagonalMask.from_seqlens([1, 2], [3])
