"""regard.torch.attention and varlen_attention: values and gradients against f64 formulas that torch differentiates."""
from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
import regard.torch as rt  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch_support import GRAD_BOUND, OUT_BOUND, plain_attention, qkv, starts, worst  # noqa: E402

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True},
    "causal from the top left": {"causal": True, "q_offset": 0},
    "window": {"window": (5, 2)},
    "softcap": {"softcap": 3.0},
    "scale": {"scale": 0.3},
    "alibi": {"alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625]), "causal": True},
}
SHAPES = {"square": (2, 19, 19, 4, 4, 32), "grouped heads": (2, 13, 29, 4, 2, 20), "one row": (1, 1, 33, 4, 1, 64),
          "other width of v": (1, 9, 17, 4, 2, 24, 40), "more rows than keys": (1, 23, 11, 4, 2, 16)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_out_lse_and_gradients_equal_the_formula(case: str, shape: str) -> None:
    q, k, v = qkv(*SHAPES[shape], grad=True)
    out, lse = rt.attention(q, k, v, return_lse=True, **CASES[case])
    want, want_lse = plain_attention(q, k, v, **CASES[case])
    assert worst(out, want) < OUT_BOUND[torch.float32]
    assert worst(lse, want_lse) < 1e-4
    weights = torch.randn(out.shape)
    got = torch.autograd.grad((out * weights).sum(), (q, k, v))
    expected = torch.autograd.grad((want * weights).sum(), (q, k, v))
    for g, e in zip(got, expected):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_gradients_have_the_type_of_their_tensors(dtype: torch.dtype) -> None:
    q, k, v = qkv(2, 17, 21, 4, 2, 32, dtype=dtype, grad=True)
    out = rt.attention(q, k, v, causal=True)
    want, _ = plain_attention(q, k, v, causal=True)
    got = torch.autograd.grad(out.sum(), (q, k, v))
    expected = torch.autograd.grad(want.sum(), (q, k, v))
    assert out.dtype == dtype and worst(out, want) < OUT_BOUND[dtype]
    for g, e in zip(got, expected):
        assert g.dtype == dtype and worst(g, e) < GRAD_BOUND[dtype]


def test_gradient_flows_through_lse_alone_and_together_with_out() -> None:
    q, k, v = qkv(1, 11, 15, 4, 2, 16, grad=True)
    for use_out in (0.0, 1.0):
        out, lse = rt.attention(q, k, v, return_lse=True)
        want, want_lse = plain_attention(q, k, v)
        got = torch.autograd.grad(lse.sin().sum() + use_out * out.cos().sum(), (q, k, v))
        expected = torch.autograd.grad(want_lse.sin().sum() + use_out * want.cos().sum(), (q, k, v))
        for g, e in zip(got, expected):
            assert worst(g, e) < GRAD_BOUND[torch.float32]
    _, lse = rt.attention(q, k, v, return_lse=True)
    dq, dv = torch.autograd.grad(lse.sum(), (q, v))
    assert dq.abs().max() > 0 and torch.count_nonzero(dv) == 0


@pytest.mark.parametrize("shape", [(1, 1, 1, 15), (1, 4, 11, 15), (2, 1, 11, 1), (2, 4, 1, 15)])
def test_bias_gradient_sums_over_what_it_was_broadcast_to(shape: tuple[int, ...]) -> None:
    q, k, v = qkv(2, 11, 15, 4, 2, 16, grad=True)
    bias = torch.randn(shape, requires_grad=True)
    out = rt.attention(q, k, v, bias=bias)
    want, _ = plain_attention(q, k, v, bias=bias)
    weights = torch.randn(out.shape)
    got = torch.autograd.grad((out * weights).sum(), (q, bias))
    expected = torch.autograd.grad((want * weights).sum(), (q, bias))
    assert got[1].shape == bias.shape and got[1].dtype == bias.dtype
    for g, e in zip(got, expected):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sink_takes_probability_and_gets_a_gradient_in_its_type(dtype: torch.dtype) -> None:
    q, k, v = qkv(2, 9, 13, 4, 2, 16, dtype=dtype, grad=True)
    sink = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=dtype).requires_grad_()
    out = rt.attention(q, k, v, sink=sink, causal=True)
    want, _ = plain_attention(q, k, v, sink=sink, causal=True)
    weights = torch.randn(out.shape)
    got, = torch.autograd.grad((out.float() * weights).sum(), sink)
    expected, = torch.autograd.grad((want * weights).sum(), sink)
    assert got.dtype == dtype and worst(got, expected) < GRAD_BOUND[dtype]


def test_boolean_mask_and_rows_without_a_key_give_zeros_not_nans() -> None:
    q, k, v = qkv(2, 7, 12, 4, 2, 16, grad=True)
    mask = torch.rand(2, 1, 7, 12, generator=torch.Generator().manual_seed(3)) > 0.5
    mask[:, :, 2] = False
    out, lse = rt.attention(q, k, v, mask=mask, return_lse=True)
    want, _ = plain_attention(q, k, v, mask=mask)
    assert worst(out, want) < OUT_BOUND[torch.float32]
    assert torch.count_nonzero(out[:, 2]) == 0 and torch.isneginf(lse[:, :, 2]).all()
    dq, dk, dv = torch.autograd.grad(out.sum(), (q, k, v))
    assert torch.count_nonzero(dq[:, 2]) == 0
    assert all(torch.isfinite(g).all() for g in (dq, dk, dv))


def test_packed_sequences_have_the_gradients_of_each_alone() -> None:
    lengths_q, lengths_kv = (5, 0, 17, 1), (9, 4, 17, 3)
    q, k, v = (t[0].detach().requires_grad_() for t in qkv(1, sum(lengths_q), sum(lengths_kv), 4, 2, 16))
    k = k[:sum(lengths_kv)]
    cu_q, cu_kv = starts(*lengths_q), starts(*lengths_kv)
    out, lse = rt.varlen_attention(q, k, v, cu_q, cu_kv, causal=True, return_lse=True)
    wants, want_lses = [], []
    for b in range(len(lengths_q)):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_kv[b], cu_kv[b + 1])
        o, s = plain_attention(q[None, rows], k[None, keys], v[None, keys], causal=True)
        wants.append(o[0])
        want_lses.append(s[0])
    want, want_lse = torch.cat(wants), torch.cat(want_lses, 1)
    assert worst(out, want) < OUT_BOUND[torch.float32] and worst(lse, want_lse) < 1e-4
    weights = torch.randn(out.shape)
    got = torch.autograd.grad((out * weights).sum() + lse.sum(), (q, k, v))
    expected = torch.autograd.grad((want * weights).sum() + want_lse.sum(), (q, k, v))
    for g, e in zip(got, expected):
        assert worst(g, e) < GRAD_BOUND[torch.float32]


def test_dropout_repeats_under_manual_seed_and_differs_from_call_to_call() -> None:
    q, k, v = qkv(2, 16, 24, 4, 2, 16)
    torch.manual_seed(5)
    first, second = (rt.attention(q, k, v, dropout=0.4) for _ in range(2))
    torch.manual_seed(5)
    again = rt.attention(q, k, v, dropout=0.4)
    assert torch.equal(first, again) and not torch.equal(first, second)
    given = [rt.attention(q, k, v, dropout=0.4, seed=7, offset=9) for _ in range(2)]
    assert torch.equal(*given)


def test_backward_replays_the_dropout_mask_of_its_forward() -> None:
    # With v the identity, out is the dropped probabilities themselves; dv of a sum over rows is their column sums.
    keys = 16
    q, k, _ = qkv(1, 20, keys, 1, 1, 8, grad=True)
    v = torch.eye(keys).reshape(1, keys, 1, keys).requires_grad_()
    out = rt.attention(q, k, v, dropout=0.5)
    dq, dv = torch.autograd.grad(out.sum(), (q, v))
    dropped = out[0, :, 0] == 0
    assert 0.3 < dropped.float().mean() < 0.7
    assert worst(dv[0, :, 0, 0], out[0, :, 0].sum(0)) < 1e-4
    kept = (~dropped).double() * 2
    weights = torch.softmax(torch.einsum("ihd,jhd->ij", q[0].double(), k[0].double()) / 8 ** 0.5, -1) * kept
    expected, = torch.autograd.grad(weights.sum(), q)
    assert worst(dq, expected) < GRAD_BOUND[torch.float32]


def test_dropout_of_one_gives_zeros_everywhere() -> None:
    q, k, v = qkv(1, 5, 7, 2, 2, 8, grad=True)
    out = rt.attention(q, k, v, dropout=1.0)
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(torch.count_nonzero(t) == 0 for t in (out, *grads))


def test_results_and_gradients_keep_the_stride_order_of_their_tensors() -> None:
    q, k, v = (t.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for t in qkv(2, 9, 9, 4, 2, 16))
    out = rt.attention(q, k, v)
    assert out.transpose(1, 2).is_contiguous()
    for g, t in zip(torch.autograd.grad(out.sum(), (q, k, v)), (q, k, v)):
        assert g.stride() == t.stride()


@pytest.mark.parametrize("shape", [(0, 5, 7), (2, 0, 7), (2, 5, 0)])
def test_empty_dims_give_empty_or_zero_results_and_gradients(shape: tuple[int, int, int]) -> None:
    q, k, v = qkv(*shape, 4, 2, 16, grad=True)
    out, lse = rt.attention(q, k, v, return_lse=True)
    assert out.shape == q.shape and lse.shape == (shape[0], 4, shape[1])
    assert torch.count_nonzero(out) == 0
    for g, t in zip(torch.autograd.grad(out.sum(), (q, k, v), allow_unused=True), (q, k, v)):
        assert g is None or (g.shape == t.shape and torch.count_nonzero(g) == 0)


def test_out_is_written_in_place_without_a_gradient() -> None:
    q, k, v = qkv(1, 6, 8, 4, 2, 16, grad=True)
    out = torch.full((1, 6, 4, 16), 7.0)
    result = rt.attention(q, k, v, out=out)
    assert result is out and not out.requires_grad
    assert worst(out, plain_attention(q, k, v)[0]) < OUT_BOUND[torch.float32]
    again = torch.empty_like(out)
    with torch.no_grad():
        assert rt.attention(q, k, v, out=again) is again
    assert torch.equal(out, again)


def test_out_dtype_widens_a_sixteen_bit_call_and_its_gradient_still_fits() -> None:
    q, k, v = qkv(1, 6, 8, 4, 2, 16, dtype=torch.bfloat16, grad=True)
    out = rt.attention(q, k, v, out_dtype=torch.float32)
    assert out.dtype == torch.float32 and worst(out, plain_attention(q, k, v)[0]) < 1e-2
    assert torch.autograd.grad(out.sum(), q)[0].dtype == torch.bfloat16


def test_eager_inference_and_the_op_give_the_same_bits() -> None:
    q, k, v = qkv(2, 33, 65, 4, 2, 64)
    direct = rt.attention(q, k, v, causal=True)
    through_op = rt.attention(q.clone().requires_grad_(), k, v, causal=True)
    assert torch.equal(direct, through_op)


def test_a_gradient_that_attention_does_not_have_is_refused_by_name() -> None:
    q, k, v = qkv(1, 5, 5, 4, 4, 8, grad=True)
    slopes = torch.rand(4, requires_grad=True)
    out = rt.attention(q, k, v, alibi_slopes=slopes, causal=True)
    with pytest.raises(regard.Error, match="alibi_slopes"):
        out.sum().backward()


def test_pages_are_for_inference_and_say_so_when_asked_for_a_gradient() -> None:
    q = torch.randn(2, 4, 16, requires_grad=True)
    k, v = torch.randn(3, 4, 2, 16), torch.randn(3, 4, 2, 16)
    table, lengths = torch.tensor([[2, 0]], dtype=torch.int32), torch.tensor([7], dtype=torch.int32)
    out = rt.varlen_attention(q, k, v, starts(2), block_table=table, seqlens_kv=lengths, causal=True)
    keys, values = (t[[2, 0]].flatten(0, 1)[None, :7] for t in (k, v))
    assert worst(out, plain_attention(q[None], keys, values, causal=True)[0][0]) < OUT_BOUND[torch.float32]
    with pytest.raises(regard.Error, match="inference"):
        out.sum().backward()


def test_a_graph_frees_what_it_saved_without_the_cycle_collector() -> None:
    q, k, v = qkv(1, 8, 8, 2, 2, 16, grad=True)
    gc.disable()
    try:
        out, lse = rt.attention(q, k, v, return_lse=True)
        alive = weakref.ref(out)
        del out, lse
        assert alive() is None
    finally:
        gc.enable()


def test_threads_train_side_by_side() -> None:
    inputs = [qkv(1, 20, 20, 4, 2, 16, grad=True, seed=n) for n in range(4)]
    expected = [torch.autograd.grad(rt.attention(*t, causal=True).sum(), t) for t in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            got = list(pool.map(lambda t: torch.autograd.grad(rt.attention(*t, causal=True).sum(), t), inputs))
            assert all(torch.equal(a, b) for g, e in zip(got, expected) for a, b in zip(g, e))


def test_bad_arguments_raise_errors_with_a_field() -> None:
    q, k, v = qkv(1, 4, 4, 3, 2, 8)
    with pytest.raises(regard.Error) as caught:
        rt.attention(q, k, v)
    assert caught.value.field
    with pytest.raises(regard.Error, match="window"):
        rt.attention(q, q, q, window=(1, 2, 3))
    with pytest.raises(TypeError):
        rt.attention(q, q, q, no_such_option=1)


def test_kv_cache_is_appended_in_place_and_the_result_needs_no_gradient() -> None:
    q, k_new, v_new = qkv(2, 3, 3, 4, 2, 16, grad=True)
    k_cache, v_cache = torch.randn(2, 10, 2, 16), torch.randn(2, 10, 2, 16)
    before = k_cache.clone()
    lengths = torch.tensor([4, 0], dtype=torch.int32)
    out, lse = rt.with_kvcache(q, k_cache, v_cache, k_new, v_new, cache_seqlens=lengths, causal=True, return_lse=True)
    assert not out.requires_grad and lse.shape == (2, 4, 3)
    assert torch.equal(k_cache[0, 4:7], k_new[0]) and torch.equal(k_cache[0, :4], before[0, :4])
    for b, n in enumerate((7, 3)):
        want, _ = plain_attention(q[b:b + 1], k_cache[b:b + 1, :n], v_cache[b:b + 1, :n], causal=True)
        assert worst(out[b:b + 1], want) < OUT_BOUND[torch.float32]


def _every_gradient() -> tuple[tuple[Any, ...], Callable[..., Any]]:
    q, k, v = qkv(2, 7, 9, 4, 2, 16, grad=True)
    inputs = (q, k, v, torch.randn(9, 7, requires_grad=True), torch.randn(4, requires_grad=True))

    def call(q: Any, k: Any, v: Any, bias: Any, sink: Any) -> Any:
        return rt.attention(q, k, v, bias=bias.t()[None, None], sink=sink, causal=True, window=(5, None), dropout=0.3,
                            seed=1, offset=2, alibi_slopes=torch.tensor([0.1, 0.2, 0.3, 0.4]), return_lse=True)

    return inputs, call


def test_eager_calls_have_the_bits_of_the_ops() -> None:
    class Watcher(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return op(*args, **(kwargs or {}))

    inputs, call = _every_gradient()
    direct = call(*inputs)
    towards = tuple(torch.randn_like(t) for t in direct)
    gradients = torch.autograd.grad(direct, inputs, towards)
    with Watcher():
        watched = call(*inputs)
        others = torch.autograd.grad(watched, inputs, towards)
    assert direct[0].grad_fn.name() != watched[0].grad_fn.name()
    assert all(torch.equal(a, b) for a, b in zip((*direct, *gradients), (*watched, *others)))


def test_a_batch_of_gradients_gives_what_each_gives_alone() -> None:
    inputs, call = _every_gradient()
    towards = torch.randn(3, 2, 7, 4, 16)
    together = torch.autograd.grad(call(*inputs)[0], inputs, towards, is_grads_batched=True)
    for n, one in enumerate(towards):
        for got, want in zip(together, torch.autograd.grad(call(*inputs)[0], inputs, one)):
            assert torch.allclose(got[n], want, atol=1e-6)


def test_saved_tensors_pass_through_hooks_and_their_versions_are_checked() -> None:
    inputs, call = _every_gradient()
    packed: list[Any] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t.clone(), lambda t: t):
        out = call(*inputs)[0]
    assert len(packed) >= 8
    for got, want in zip(torch.autograd.grad(out.sum(), inputs), torch.autograd.grad(call(*inputs)[0].sum(), inputs)):
        assert torch.equal(got, want)
    scaled = inputs[0] * 1
    out = call(scaled, *inputs[1:])[0]
    scaled.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
