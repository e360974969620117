"""The private functions that ring-attention packages call, and a ring built on them as those packages build it."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import assert_close, cumulative, dense, fa2_lse, gradients_of, packed, randn  # noqa: E402
from regard.flash_attn import flash_attn_interface as interface  # noqa: E402

SCALE = 0.25


def tensors(b=2, sq=6, skv=8, hq=4, hkv=2, d=16, grad=True):
    return (
        randn(b, sq, hq, d, grad=grad, seed=1), randn(b, skv, hkv, d, grad=grad, seed=2),
        randn(b, skv, hkv, d, grad=grad, seed=3),
    )


def forward(q, k, v, causal=False, window=(-1, -1), slopes=None, dropout=0.0):
    return interface._flash_attn_forward(q, k, v, dropout, SCALE, causal, *window, 0.0, slopes, dropout > 0)


def backward(dout, q, k, v, out, lse, causal=False, window=(-1, -1), slopes=None, dropout=0.0, rng_state=None):
    dq, dk, dv = (torch.full_like(x, torch.nan) for x in (q, k, v))
    softmax_d = interface._flash_attn_backward(
        dout, q, k, v, out, lse, dq, dk, dv, dropout, SCALE, causal, *window, 0.0, slopes, True, rng_state=rng_state
    )
    return dq, dk, dv, softmax_d


@pytest.mark.parametrize("causal, skv", [(False, 8), (True, 8), (True, 3)])
def test_forward_gives_states_and_backward_takes_them(causal, skv):
    q, k, v = tensors(skv=skv)
    out, lse, empty, rng_state = forward(q, k, v, causal)
    expected, plain = dense(q, k, v, scale=SCALE, causal=causal)
    assert not out.requires_grad and not lse.requires_grad
    assert_close(out, expected)
    assert_close(lse, fa2_lse(plain))
    assert empty.shape == (0,) and rng_state.shape == (2,) and rng_state.dtype == torch.int64
    dout = randn(*out.shape, seed=4)
    *grads, softmax_d = backward(dout, q, k, v, out, lse, causal)
    for got, want in zip(grads, gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)
    assert softmax_d.shape == (2, 4, 128) and softmax_d.dtype == torch.float32
    assert_close(softmax_d[:, :, :6], (dout * expected).sum(-1).transpose(1, 2))


def test_varlen_states_and_gradients():
    cu_q, cu_k = cumulative([4, 2]), cumulative([5, 1])
    q, k, v = randn(6, 4, 16, grad=True, seed=1), randn(6, 2, 16, grad=True, seed=2), randn(6, 2, 16, grad=True, seed=3)
    lengths = (cu_q, cu_k, 4, 5)
    out, lse, _, _ = interface._flash_attn_varlen_forward(q, k, v, *lengths, 0.0, SCALE, True)
    expected, plain = packed(q, k, v, cu_q, cu_k, scale=SCALE, causal=True)
    assert_close(lse, fa2_lse(plain))
    dout = randn(*out.shape, seed=4)
    dq, dk, dv = (torch.full_like(x, torch.nan) for x in (q, k, v))
    softmax_d = interface._flash_attn_varlen_backward(
        dout, q, k, v, out, lse, dq, dk, dv, *lengths, 0.0, SCALE, True, -1, -1, 0.0, None, False
    )
    for got, want in zip((dq, dk, dv), gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)
    assert softmax_d.shape == (4, 6 + 2 * 128)
    delta = (dout * expected).sum(-1).T
    assert_close(softmax_d[:, :4], delta[:, :4])
    assert_close(softmax_d[:, 4 + 128 : 6 + 128], delta[:, 4:])


def test_backward_takes_the_alibi_term_off_the_lse():
    q, k, v = tensors(sq=7, skv=5)
    slopes = torch.tensor([1.0, 0.5, 0.25, 0.125])
    out, lse, _, _ = forward(q, k, v, True, slopes=slopes)
    expected, plain = dense(q, k, v, scale=SCALE, causal=True, slopes=slopes)
    term = slopes[None, :, None] * (torch.arange(7) - 2)
    assert_close(lse, fa2_lse(plain + term))
    dout = randn(*out.shape, seed=4)
    *grads, _ = backward(dout, q, k, v, out, lse, True, slopes=slopes)
    for got, want in zip(grads, gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)


def merge(out, lse, block_out, block_lse):
    """What ring-attention packages do: lse (B, H, S) of flash-attn, +inf rows are those that saw nothing."""
    block_lse = torch.where(torch.isposinf(block_lse), -math.inf, block_lse)
    if out is None:
        return block_out.float(), block_lse
    merged = torch.logaddexp(lse, block_lse)
    safe = torch.where(torch.isneginf(merged), 0.0, merged)
    weights = [torch.exp(x - safe).transpose(1, 2)[..., None] for x in (lse, block_lse)]
    return weights[0] * out + weights[1] * block_out.float(), merged


@pytest.mark.parametrize("causal", [False, True])
def test_a_ring_over_blocks_of_keys_gives_whole_attention_and_its_gradients(causal):
    blocks, size = 3, 4
    q, k, v = tensors(sq=blocks * size, skv=blocks * size)
    expected, _ = dense(q, k, v, scale=SCALE, causal=causal)
    dout = randn(*expected.shape, seed=4)
    wanted = gradients_of((expected * dout).sum(), q, k, v)
    parts = [[x.detach()[:, i * size : (i + 1) * size] for i in range(blocks)] for x in (q, k, v, dout)]
    got = [torch.zeros_like(x) for x in (q, k, v)]
    for i in range(blocks):
        visible = [j for j in range(blocks) if not causal or j <= i]
        out = lse = None
        for j in visible:
            states = forward(parts[0][i], parts[1][j], parts[2][j], causal and i == j)
            out, lse = merge(out, lse, *states[:2])
        assert_close(out, expected[:, i * size : (i + 1) * size])
        for j in visible:
            dq, dk, dv, _ = backward(parts[3][i], parts[0][i], parts[1][j], parts[2][j], out, lse, causal and i == j)
            for total, part, at in ((got[0], dq, i), (got[1], dk, j), (got[2], dv, j)):
                total[:, at * size : (at + 1) * size] += part
    for a, b in zip(got, wanted):
        assert_close(a, b, factor=5)


def test_rows_whose_lse_is_plus_infinity_have_no_gradient():
    q, k, v = tensors()
    out, lse, _, _ = forward(q, k, v)
    lse[:, :, 2] = math.inf
    dout = randn(*out.shape, seed=4)
    dq, dk, dv, _ = backward(dout, q, k, v, out, lse)
    assert (dq[:, 2] == 0).all()
    without = dout.clone()
    without[:, 2] = 0
    expected, _ = dense(q, k, v, scale=SCALE)
    for got, want in zip((dk, dv), gradients_of((expected * without).sum(), k, v)):
        assert_close(got, want, factor=3)


def test_gradients_that_nobody_wants_may_be_none():
    q, k, v = tensors(grad=False)
    out, lse, _, _ = forward(q, k, v)
    dq = torch.full_like(q, torch.nan)
    dout = randn(*out.shape, seed=4)
    interface._flash_attn_backward(
        dout, q, k, v, out, lse, dq, None, None, 0.0, SCALE, False, -1, -1, 0.0, None, False
    )
    assert torch.equal(dq, backward(dout, q, k, v, out, lse)[0])


def test_strided_gradients_are_written_where_they_lie():
    q, k, v = tensors(sq=8, skv=8, hq=2, hkv=2, grad=False)
    out, lse, _, _ = forward(q, k, v)
    dout = randn(*out.shape, seed=4)
    dqkv = torch.full((2, 8, 3, 2, 16), torch.nan)
    interface._flash_attn_backward(
        dout, q, k, v, out, lse, *dqkv.unbind(2), 0.0, SCALE, False, -1, -1, 0.0, None, False
    )
    for got, want in zip(dqkv.unbind(2), backward(dout, q, k, v, out, lse)):
        assert torch.equal(got, want)


def test_dropout_without_rng_state_is_refused():
    q, k, v = tensors(grad=False)
    out, lse, _, _ = forward(q, k, v)
    with pytest.raises(regard.Error) as caught:
        backward(out, q, k, v, out, lse, dropout=0.5)
    assert caught.value.field == "rng_state"


def test_wrapped_names_are_plain_functions_and_no_operator_namespace_is_taken():
    assert interface._wrapped_flash_attn_forward is interface._flash_attn_forward
    assert interface._wrapped_flash_attn_varlen_forward is interface._flash_attn_varlen_forward
    assert interface._wrapped_flash_attn_backward is interface._flash_attn_backward
    assert interface._wrapped_flash_attn_varlen_backward is interface._flash_attn_varlen_backward
    for namespace in ("flash_attn", "flashattn", "flash_attn_3"):
        taken = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith(namespace + "::")]
        assert not taken


def test_helpers():
    assert [interface.round_multiple(n, 128) for n in (0, 1, 128, 129)] == [0, 128, 128, 256]
    x = randn(4, 6).T
    assert interface.maybe_contiguous(x).is_contiguous() and torch.equal(interface.maybe_contiguous(x), x)
    assert interface.maybe_contiguous(None) is None
    for head_dim in (16, 32, 64, 96, 128, 160, 192, 256, 512):
        for is_dropout in (False, True):
            assert interface._get_block_size_n("cpu", head_dim, is_dropout, True) in (32, 64, 128)
