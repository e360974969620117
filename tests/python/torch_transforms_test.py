"""What torch does to a function: opcheck, compile, grad, vmap, autocast, checkpointing, double backward."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
import regard.torch as rt  # noqa: E402
from regard.torch import _ops  # noqa: E402
from regard.torch._options import pack  # noqa: E402
from torch_support import plain_attention, qkv, starts, worst  # noqa: E402

OPS = torch.ops.regard
NO_PACK = (None,) * 7 + ("NHD",)


def _dense_args(grad: bool, **options: Any) -> tuple[Any, ...]:
    q, k, v = qkv(2, 7, 11, 4, 2, 16, grad=grad)
    return (q, k, v, *pack(**options), None)


def _backward_args(**options: Any) -> tuple[Any, ...]:
    q, k, v, *rest = _dense_args(False, **options)
    out, lse = OPS.attention_forward(q, k, v, *rest)
    want_dbias, want_dsink = options.get("bias") is not None, options.get("sink") is not None
    return (torch.randn_like(out), torch.randn_like(lse), q, k, v, out, lse, None, None, *rest[:-1], want_dbias,
            want_dsink)


def _packed_args() -> tuple[Any, ...]:
    q, k, v = (t[0].detach().requires_grad_() for t in qkv(1, 12, 17, 4, 2, 16))
    return (q, k, v, starts(5, 7), starts(9, 8), *NO_PACK[2:], *pack(causal=True), None)


def _cache_args() -> tuple[Any, ...]:
    q, k_new, v_new = qkv(2, 3, 3, 4, 2, 16)
    cache = (k_new, v_new, torch.tensor([4, 0], dtype=torch.int32), None, None, None, None, None, "NHD", None, None,
             None, None, "none", None)
    return (q, torch.randn(2, 10, 2, 16), torch.randn(2, 10, 2, 16), *cache, *pack(causal=True), None)


OPCHECKS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "forward": (OPS.attention_forward, lambda: _dense_args(True, causal=True)),
    "forward with everything that has a gradient": (OPS.attention_forward, lambda: _dense_args(
        True, bias=torch.randn(1, 4, 7, 11, requires_grad=True), sink=torch.randn(4, requires_grad=True),
        mask=torch.rand(2, 1, 7, 11) > 0.2, window=(4, None), softcap=5.0, dropout=0.25, seed=1, offset=2)),
    "forward of transposed views": (OPS.attention_forward, lambda: tuple(
        a.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() if n < 3 else a
        for n, a in enumerate(_dense_args(False)))),
    "varlen forward": (OPS.varlen_forward, _packed_args),
    "backward": (OPS.attention_backward, lambda: _backward_args(causal=True)),
    "backward with bias and sink": (OPS.attention_backward, lambda: _backward_args(
        bias=torch.randn(1, 4, 7, 11), sink=torch.randn(4))),
    "kv cache": (OPS.with_kvcache, _cache_args),
}


@pytest.mark.parametrize("name", OPCHECKS)
def test_opcheck_passes(name: str) -> None:
    op, args = OPCHECKS[name]
    report = torch.library.opcheck(op.default, args())
    assert set(report.values()) == {"SUCCESS"}, report


def test_every_custom_op_is_among_the_opchecks() -> None:
    assert {op.default.name() for op, _ in OPCHECKS.values()} == {f"regard::{name}" for name in _ops.SCHEMAS}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_in_one_graph_with_the_results_and_gradients_of_eager(backend: str) -> None:
    def model(q: Any, k: Any, v: Any, bias: Any, sink: Any) -> Any:
        out, lse = rt.attention(q * 2, k, v, bias=bias, sink=sink, causal=True, return_lse=True)
        return out.sin().sum() + lse.sum()

    torch._dynamo.reset()
    inputs = (*qkv(2, 7, 11, 4, 2, 16, grad=True), torch.randn(1, 4, 7, 11, requires_grad=True),
              torch.randn(4, requires_grad=True))
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    got, expected = compiled(*inputs), model(*inputs)
    assert worst(got, expected) < 1e-4
    for g, e in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs)):
        assert worst(g, e) < 1e-5


def test_every_torch_function_compiles_in_one_graph() -> None:
    q, k, v = qkv(2, 7, 7, 4, 2, 16)
    heads_first = [t.transpose(1, 2) for t in (q, k, v)]
    cu = starts(7, 7)
    packed = [t.flatten(0, 1) for t in (q, k, v)]

    def functions(q: Any, k: Any, v: Any, pq: Any, pk: Any, pv: Any) -> tuple[Any, ...]:
        a = rt.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        b = rt.scaled_dot_product_attention(q, k, v, torch.ones(7, 7, dtype=torch.bool), enable_gqa=True)
        c = rt.varlen_attn(pq, pk, pv, cu, cu, 7, 7, window_size=(-1, 0), enable_gqa=True)
        return a, b, c

    torch._dynamo.reset()
    args = (*heads_first, *packed)
    for got, want in zip(torch.compile(functions, fullgraph=True, backend="aot_eager")(*args), functions(*args)):
        assert torch.equal(got, want)


def test_compiled_with_dynamic_lengths_does_not_compile_again() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda q, k, v: rt.attention(q, k, v, causal=True), fullgraph=True, dynamic=True,
                             backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (9, 17, 40):
            q, k, v = qkv(2, length, length, 4, 2, 16)
            assert torch.equal(compiled(q, k, v), rt.attention(q, k, v, causal=True))


def test_compiled_dropout_changes_from_call_to_call_and_repeats_under_manual_seed() -> None:
    torch._dynamo.reset()
    q, k, v = qkv(1, 16, 16, 2, 2, 16, grad=True)
    compiled = torch.compile(lambda q, k, v: rt.attention(q, k, v, dropout=0.5), fullgraph=True, backend="aot_eager")
    torch.manual_seed(3)
    first, second = compiled(q, k, v), compiled(q, k, v)
    torch.manual_seed(3)
    assert torch.equal(first, compiled(q, k, v)) and not torch.equal(first, second)
    assert torch.isfinite(torch.autograd.grad(first.sum(), q)[0]).all()


def test_compiled_cache_step_writes_the_cache() -> None:
    torch._dynamo.reset()
    q, k_new, v_new = qkv(2, 1, 1, 4, 2, 16)
    lengths = torch.tensor([4, 0], dtype=torch.int32)

    def step(q: Any, kc: Any, vc: Any) -> Any:
        return rt.with_kvcache(q, kc, vc, k_new, v_new, cache_seqlens=lengths, causal=True) + 1

    caches = [torch.randn(2, 10, 2, 16) for _ in range(2)]
    copies = [c.clone() for c in caches]
    got = torch.compile(step, fullgraph=True, backend="aot_eager")(q, *caches)
    assert torch.equal(got, step(q, *copies))
    assert all(torch.equal(a, b) for a, b in zip(caches, copies)) and torch.equal(caches[0][0, 4], k_new[0, 0])


def test_func_grad_equals_autograd() -> None:
    q, k, v = qkv(1, 6, 9, 4, 2, 16)
    got = torch.func.grad(lambda q, k, v: rt.attention(q, k, v, causal=True).sin().sum(), argnums=(0, 1, 2))(q, k, v)
    inputs = [t.clone().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad(rt.attention(*inputs, causal=True).sin().sum(), inputs)
    assert all(torch.equal(g, e) for g, e in zip(got, expected))


def test_func_grad_compiles_in_one_graph() -> None:
    torch._dynamo.reset()
    q, k, v = qkv(1, 6, 9, 4, 2, 16)
    gradient = torch.func.grad(lambda q: rt.attention(q, k, v, causal=True).sin().sum())
    assert torch.equal(torch.compile(gradient, fullgraph=True, backend="aot_eager")(q), gradient(q))


@pytest.mark.parametrize("dims", [(0, 0, 0), (1, 0, 2), (0, None, None), (None, 3, 1)])
def test_vmap_equals_a_loop_over_samples(dims: tuple[int | None, ...]) -> None:
    samples = [qkv(2, 6, 9, 4, 2, 16, seed=n) for n in range(3)]
    inputs = [part[0] if d is None else torch.stack(part, d) for part, d in zip(zip(*samples), dims)]
    got = torch.vmap(lambda q, k, v: rt.attention(q, k, v, causal=True, return_lse=True), in_dims=dims)(*inputs)
    for n in range(3):
        q, k, v = (t if d is None else t.select(d, n) for t, d in zip(inputs, dims))
        out, lse = rt.attention(q, k, v, causal=True, return_lse=True)
        assert worst(got[0][n], out) < 1e-6 and worst(got[1][n], lse) < 1e-6


OPTIONS: dict[str, tuple[Callable[[int], dict[str, Any]], bool]] = {
    "slopes of all": (lambda n: {"alibi_slopes": torch.rand(4), "causal": True}, False),
    "slopes of each": (lambda n: {"alibi_slopes": torch.rand(n, 4), "causal": True}, True),
    "bias of all": (lambda n: {"bias": torch.randn(1, 4, 6, 9)}, False),
    "bias of each": (lambda n: {"bias": torch.randn(n, 1, 4, 6, 9)}, True),
    "mask of each, by sequence": (lambda n: {"mask": torch.rand(n, 2, 1, 6, 9) > 0.3}, True),
    "sink of each": (lambda n: {"sink": torch.randn(n, 4)}, True),
    "offsets of each": (lambda n: {"q_offset": torch.randint(0, 4, (n, 2), dtype=torch.int32), "causal": True}, True),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_vmap_takes_options_that_are_mapped_or_shared(name: str) -> None:
    make, mapped = OPTIONS[name]
    samples = [qkv(2, 6, 9, 4, 2, 16, seed=n) for n in range(3)]
    q, k, v = (torch.stack(part) for part in zip(*samples))
    options = make(3)
    values = [t for t in options.values() if isinstance(t, torch.Tensor)]
    names = [key for key, t in options.items() if isinstance(t, torch.Tensor)]
    rest = {key: t for key, t in options.items() if key not in names}

    def call(q: Any, k: Any, v: Any, *tensors: Any) -> Any:
        return rt.attention(q, k, v, **dict(zip(names, tensors)), **rest)

    dim = 0 if mapped else None
    got = torch.vmap(call, in_dims=(0, 0, 0, *[dim] * len(values)))(q, k, v, *values)
    for n in range(3):
        want = call(q[n], k[n], v[n], *(t[n] if mapped else t for t in values))
        assert worst(got[n], want) < 1e-6


def test_vmap_of_grad_gives_the_gradients_of_each_sample_shared_bias_and_sink_included() -> None:
    samples = [qkv(2, 6, 9, 4, 2, 16, seed=n) for n in range(3)]
    q, k, v = (torch.stack(part) for part in zip(*samples))
    bias, sink = torch.randn(1, 4, 6, 9), torch.randn(4)

    def loss(q: Any, k: Any, v: Any, bias: Any) -> Any:
        return rt.attention(q, k, v, bias=bias).sin().sum()

    def loss_with_sink(q: Any, k: Any, v: Any, bias: Any, sink: Any) -> Any:
        return rt.attention(q, k, v, bias=bias, sink=sink).sin().sum()

    for fn, shared in ((loss, (bias,)), (loss_with_sink, (bias, sink))):
        wanted = tuple(range(3 + len(shared)))
        got = torch.vmap(torch.func.grad(fn, argnums=wanted), in_dims=(0, 0, 0, *[None] * len(shared)))(
            q, k, v, *shared)
        for n in range(3):
            inputs = [t.clone().requires_grad_() for t in (q[n], k[n], v[n], *shared)]
            for g, e in zip(got, torch.autograd.grad(fn(*inputs), inputs)):
                assert worst(g[n], e) < 1e-5


def test_vmap_of_packed_sequences_equals_a_loop_and_of_a_cache_is_refused() -> None:
    samples = [[t[0] for t in qkv(1, 12, 12, 4, 2, 16, seed=n)] for n in range(3)]
    q, k, v = (torch.stack(part) for part in zip(*samples))
    cu = starts(5, 7)
    got = torch.vmap(lambda q, k, v: rt.varlen_attention(q, k, v, cu, cu, causal=True))(q, k, v)
    for n in range(3):
        assert torch.equal(got[n], rt.varlen_attention(q[n], k[n], v[n], cu, cu, causal=True))
    cache = torch.zeros(3, 2, 10, 2, 16)
    with pytest.raises(regard.Error, match="vmap"):
        torch.vmap(lambda q, c: rt.with_kvcache(q, c, c.clone(), cache_seqlens=torch.ones(2, dtype=torch.int32)))(
            torch.randn(3, 2, 1, 4, 16), cache)


def test_vmap_of_dropout_asks_torch_which_randomness_is_meant() -> None:
    q, k, v = (torch.stack([t, t]) for t in qkv(1, 8, 8, 2, 2, 16))

    def call(q: Any, k: Any, v: Any) -> Any:
        return rt.attention(q, k, v, dropout=0.5)

    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(call)(q, k, v)
    same = torch.vmap(call, randomness="same")(q, k, v)
    different = torch.vmap(call, randomness="different")(q, k, v)
    assert torch.equal(same[0], same[1]) and not torch.equal(different[0], different[1])


def test_autocast_computes_in_its_type_and_gradients_return_in_the_inputs_type() -> None:
    q, k, v = qkv(1, 6, 9, 4, 2, 16, grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = rt.attention(q, k, v, causal=True)
        inside = rt.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True,
                                                 enable_gqa=True)
    want = rt.attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=True)
    assert out.dtype == inside.dtype == torch.bfloat16 and torch.equal(out, want)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_autocast_compiles_in_one_graph() -> None:
    torch._dynamo.reset()
    q, k, v = qkv(1, 6, 9, 4, 2, 16, grad=True)

    def model(q: Any, k: Any, v: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return rt.attention(q, k, v)

    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(q, k, v), model(q, k, v))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_the_same_dropout(reentrant: bool) -> None:
    q, k, v = qkv(1, 16, 16, 2, 2, 16, grad=True)

    def block(q: Any, k: Any, v: Any) -> Any:
        return rt.attention(q.sin(), k, v, dropout=0.3)

    torch.manual_seed(11)
    expected = torch.autograd.grad(block(q, k, v).square().sum(), (q, k, v))
    torch.manual_seed(11)
    loss = torch.utils.checkpoint.checkpoint(block, q, k, v, use_reentrant=reentrant).square().sum()
    for t in (q, k, v):
        t.grad = None
    loss.backward()
    for t, e in zip((q, k, v), expected):
        assert torch.equal(t.grad, e)


def test_double_backward_is_refused_with_a_way_out() -> None:
    q, k, v = qkv(1, 6, 9, 2, 2, 16, grad=True)
    dq, = torch.autograd.grad(rt.attention(q, k, v).sin().sum(), q, create_graph=True)
    with pytest.raises(regard.Error, match="second backward") as caught:
        dq.sum().backward()
    assert caught.value.field == "create_graph" and "MATH" in caught.value.expected


def test_forward_mode_is_refused_not_silently_zero() -> None:
    q, k, v = qkv(1, 4, 4, 2, 2, 8)
    with pytest.raises(regard.Error, match="forward-mode"):
        torch.func.jvp(lambda q: rt.attention(q, k, v), (q,), (torch.ones_like(q),))


def test_meta_tensors_give_shapes_types_and_strides() -> None:
    q, k, v = (t.to("meta") for t in qkv(2, 6, 9, 4, 2, 16, 24, dtype=torch.bfloat16))
    out, lse = rt.attention(q, k, v, return_lse=True)
    assert out.is_meta and out.shape == (2, 6, 4, 24) and out.dtype == torch.bfloat16 and lse.shape == (2, 4, 6)


def test_training_steps_give_the_weights_that_the_formula_gives() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(16, 48, requires_grad=True) for _ in range(2)]
    with torch.no_grad():
        weights[1].copy_(weights[0])
    x = torch.randn(2, 12, 16)
    calls = (lambda *t: rt.attention(*t, causal=True), lambda *t: plain_attention(*t, causal=True)[0])
    for w, call in zip(weights, calls):
        optimizer = torch.optim.SGD([w], lr=0.1)
        for _ in range(5):
            q, k, v = (x @ w).unflatten(-1, (3, 2, 8)).unbind(-3)
            loss = (call(q, k, v).float() - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert worst(*weights) < 1e-3


def test_compiled_autograd_traces_the_backward_of_an_eager_call() -> None:
    q, k, v = qkv(1, 8, 8, 2, 2, 16, grad=True)
    expected = torch.autograd.grad(rt.attention(q, k, v, causal=True).sum(), (q, k, v))
    torch._dynamo.reset()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        rt.attention(q, k, v, causal=True).sum().backward()
    assert all(torch.equal(t.grad, e) for t, e in zip((q, k, v), expected))
