"""regard.attention_backward against torch's own differentiation of the plain formula in float64."""

import numpy as np
import pytest

import oracle
import regard

torch = pytest.importorskip("torch")

B, SQ, SKV, HQ, HKV, D, DV = 2, 9, 14, 4, 2, 24, 40


def tensors(dtype=torch.float32):
    shapes = [(B, SQ, HQ, D), (B, SKV, HKV, D), (B, SKV, HKV, DV), (B, SQ, HQ, DV)]
    return tuple(torch.from_numpy(oracle.normal(*shape, seed=i)).to(dtype) for i, shape in enumerate(shapes))


def formula(q, k, v, *, causal=False, window=(None, None), softcap=0.0, bias=None, sink=None):
    """out and lse in float64, differentiable."""
    k, v = (x.repeat_interleave(HQ // HKV, 2) for x in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / D**0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    seen = torch.from_numpy(oracle.visible(q.shape[1], k.shape[1], causal=causal, window=window))
    scores = scores.masked_fill(~seen, float("-inf"))
    every = scores if sink is None else torch.cat([scores, sink[None, :, None, None].expand(*scores.shape[:3], 1)], -1)
    lse = torch.logsumexp(every, -1)
    return torch.einsum("bhij,bjhd->bihd", torch.exp(scores - lse[..., None]), v), lse


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (6, 3)}, {"softcap": 2.0, "causal": True},
                                     {"bias": True}, {"sink": True}, {"bias": True, "sink": True, "causal": True}])
@pytest.mark.parametrize("with_dlse", [False, True])
def test_gradients_are_those_of_the_formula(options, with_dlse):
    q, k, v, dout = tensors()
    dlse = torch.from_numpy(oracle.normal(B, HQ, SQ, seed=7)) if with_dlse else None
    extra = {"bias": torch.from_numpy(oracle.normal(1, HQ, 1, SKV, seed=8)),
             "sink": torch.from_numpy(oracle.normal(HQ, seed=9))}
    options = {name: extra[name] if value is True and name in extra else value for name, value in options.items()}
    wide = {name: x.double().requires_grad_() if torch.is_tensor(x) else x for name, x in options.items()}
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    want_out, want_lse = formula(*leaves, **wide)
    loss = (want_out * dout).sum() + (0 if dlse is None else (want_lse * dlse).sum())
    loss.backward()
    out, lse = regard.attention(q, k, v, return_lse=True, **options)
    got = regard.attention_backward(dout, q, k, v, out, lse, dlse=dlse, dbias="bias" in options, dsink="sink" in options,
                                    **options)
    wanted = {"dq": leaves[0], "dk": leaves[1], "dv": leaves[2], "dbias": wide.get("bias"), "dsink": wide.get("sink")}
    for name, leaf in wanted.items():
        gradient = getattr(got, name)
        if leaf is None:
            assert gradient is None
        else:
            assert gradient.shape == leaf.shape and gradient.dtype == torch.float32
            assert oracle.error(gradient.numpy(), leaf.grad.numpy()) < 1e-4, name


def test_packed_gradients_are_those_of_each_sequence():
    q, k, v, dout = (x[0] for x in tensors())
    cu_q, cu_k = [0, 5, 5, 9], [0, 6, 8, 14]
    out, lse = regard.varlen_attention(q, k, v, cu_q, cu_k, causal=True, return_lse=True)
    got = regard.attention_backward(dout, q, k, v, out, lse, cu_seqlens_q=cu_q, cu_seqlens_kv=cu_k, causal=True)
    for b in range(3):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        leaves = [x.double()[None].requires_grad_() for x in (q[rows], k[keys], v[keys])]
        (formula(*leaves, causal=True)[0] * dout[rows]).sum().backward()
        for gradient, leaf, part in zip(got, leaves, (rows, keys, keys)):
            assert oracle.error(gradient[part].numpy(), leaf.grad[0].numpy()) < 1e-4


def test_gradients_come_in_the_type_asked_for():
    q, k, v, dout = tensors(torch.bfloat16)
    out, lse = regard.attention(q, k, v, return_lse=True)
    plain = regard.attention_backward(dout, q, k, v, out, lse)
    wide = regard.attention_backward(dout, q, k, v, out, lse, grad_dtype="f32")
    for narrow, full in zip(plain[:3], wide[:3]):
        assert narrow.dtype == torch.bfloat16 and full.dtype == torch.float32
        assert torch.equal(full.bfloat16(), narrow)


def test_gradients_go_where_the_caller_says():
    q, k, v, dout = (x.numpy() for x in tensors())
    out, lse = regard.attention(q, k, v, return_lse=True)
    made = regard.attention_backward(dout, q, k, v, out, lse)
    room = [np.full(x.shape, np.nan, np.float32) for x in (q, k, v)]
    got = regard.attention_backward(dout, q, k, v, out, lse, dq=room[0], dk=room[1], dv=room[2])
    for mine, given, first in zip(room, got, made):
        assert given is mine and np.array_equal(mine, first)
    assert isinstance(got, regard.Gradients) and got.dbias is None


@pytest.mark.parametrize("wrong, field", [({"dbias": True}, "dbias"), ({"dsink": True}, "dsink"),
                                          ({"grad_dtype": "bf16"}, "grad_dtype"), ({"qv": 1}, "qv")])
def test_wrong_wishes_are_refused(wrong, field):
    q, k, v, dout = tensors()
    out, lse = regard.attention(q, k, v, return_lse=True)
    if "qv" in wrong:
        wrong = {"qv": out.clone()}
    with pytest.raises(regard.Error) as caught:
        regard.attention_backward(dout, q, k, v, out, lse, **wrong)
    assert caught.value.field == field
