"""Dropout: the keep mask of docs/semantics.md, seeds from torch's generator, replay in backward, S_dmask's signs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import assert_close, cumulative, dense, gradients_of, packed, randn  # noqa: E402
from regard import flash_attn as fa  # noqa: E402
from regard.flash_attn import _dropout  # noqa: E402
from regard.flash_attn import flash_attn_interface as interface  # noqa: E402

MASK32, MASK64 = 2**32 - 1, 2**64 - 1


def philox(counter, key):
    """Philox4x32-10 of one counter, in Python integers."""
    c, k = list(counter), [key & MASK32, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK32, (a >> 32) ^ c[3] ^ k[1], a & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c


def keep(b, h, i, j, *, heads, rows, keys, p, seed, offset):
    """Whether docs/semantics.md keeps this entry."""
    counter = (j // 4, (i + keys - rows) & MASK32, b * heads + h, offset & MASK32)
    return philox(counter, seed ^ ((offset >> 32) << 32))[j % 4] >= int(p * 2**32)


def keep_tensor(batch, heads, rows, keys, p, rng_state):
    seed, offset = (int(x) & MASK64 for x in rng_state)
    size = {"heads": heads, "rows": rows, "keys": keys, "p": p, "seed": seed, "offset": offset}
    return torch.tensor(
        [[[[keep(b, h, i, j, **size) for j in range(keys)] for i in range(rows)] for h in range(heads)]
         for b in range(batch)]
    )


def test_philox_gives_the_published_vectors():
    # Known answers of the paper's authors' distribution (Random123, philox4x32 with 10 rounds).
    assert philox((0, 0, 0, 0), 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = MASK32
    assert philox((ones,) * 4, MASK64) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("p", [0.0, 0.17, 0.5, 1.0])
@pytest.mark.parametrize("rows, keys", [(5, 9), (9, 5), (1, 4)])
def test_the_keep_mask_is_that_of_semantics(rows, keys, p):
    seed, offset = 0xFEDCBA9876543210, 0x123456789ABCDEF0
    q, k = randn(2, rows, 3, 8), randn(2, keys, 3, 8)
    mask = regard.dropout_mask(q, k, k, dropout=p, seed=seed, offset=offset)
    assert torch.equal(mask, keep_tensor(2, 3, rows, keys, p, (seed, offset)))


@pytest.mark.parametrize("causal, p", [(False, 0.3), (True, 0.3), (True, 0.8)])
def test_output_and_gradients_are_those_of_the_mask_that_rng_state_names(causal, p):
    q, k, v = randn(2, 6, 4, 8, grad=True), randn(2, 9, 2, 8, grad=True, seed=1), randn(2, 9, 2, 8, grad=True, seed=2)
    torch.manual_seed(7)
    out, lse, _ = fa.flash_attn_func(q, k, v, dropout_p=p, causal=causal, return_attn_probs=True)
    torch.manual_seed(7)
    _, _, _, rng_state = interface._flash_attn_forward(q, k, v, p, 8**-0.5, causal, -1, -1, 0.0, None, False)
    mask = keep_tensor(2, 4, 6, 9, p, rng_state)
    expected, plain = dense(q, k, v, causal=causal, keep=mask, dropout=p)
    assert_close(out, expected)
    assert_close(lse, plain)  # of the softmax before dropout
    dout = randn(*out.shape, seed=4)
    for got, want in zip(gradients_of((out * dout).sum(), q, k, v), gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)


def test_private_backward_replays_the_mask_from_rng_state():
    q, k, v = (randn(1, 5, 2, 8, grad=True, seed=s) for s in (1, 2, 3))
    out, lse, _, rng_state = interface._flash_attn_forward(q, k, v, 0.4, 0.3, False, -1, -1, 0.0, None, False)
    mask = keep_tensor(1, 2, 5, 5, 0.4, rng_state)
    expected, _ = dense(q, k, v, scale=0.3, keep=mask, dropout=0.4)
    assert_close(out, expected)
    dout = randn(*out.shape, seed=4)
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    interface._flash_attn_backward(
        dout, q, k, v, out, lse, dq, dk, dv, 0.4, 0.3, False, -1, -1, 0.0, None, False, rng_state=rng_state
    )
    for got, want in zip((dq, dk, dv), gradients_of((expected * dout).sum(), q, k, v)):
        assert_close(got, want, factor=3)


def test_manual_seed_repeats_two_calls_differ_and_the_generator_moves_on():
    q, k, v = (randn(1, 8, 2, 8, seed=s) for s in (1, 2, 3))
    torch.manual_seed(3)
    first, second = (fa.flash_attn_func(q, k, v, dropout_p=0.5) for _ in range(2))
    after = torch.rand(1)
    torch.manual_seed(3)
    again = [fa.flash_attn_func(q, k, v, dropout_p=0.5) for _ in range(2)]
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(3)
    assert not torch.equal(after, torch.rand(1))
    torch.manual_seed(3)
    fa.flash_attn_func(q, k, v)
    untouched = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(untouched, torch.rand(1))


def test_p_of_one_gives_zero_output_and_gradients():
    q, k, v = (randn(1, 4, 2, 8, grad=True, seed=s) for s in (1, 2, 3))
    out = fa.flash_attn_func(q, k, v, dropout_p=1.0)
    assert (out == 0).all()
    assert all((g == 0).all() for g in gradients_of(out.sum(), q, k, v))


def test_s_dmask_is_the_softmax_with_the_sign_of_what_was_dropped():
    q, k, v = (randn(2, n, h, 8, grad=True, seed=s) for n, h, s in ((5, 4, 1), (130, 2, 2), (130, 2, 3)))
    torch.manual_seed(11)
    out, lse, probabilities = fa.flash_attn_func(q, k, v, dropout_p=0.3, causal=True, return_attn_probs=True)
    assert probabilities.shape == (2, 4, 128, 256)
    assert probabilities.dtype == q.dtype and not probabilities.requires_grad
    inner = probabilities[:, :, :5, :130]
    assert (probabilities[:, :, 5:] == 0).all() and (probabilities[:, :, :, 130:] == 0).all()
    sums = inner.abs().sum(-1)
    assert_close(sums, torch.ones_like(sums))
    dropped = torch.signbit(inner)
    values = v.repeat_interleave(2, 2)
    rebuilt = torch.einsum("bhij,bjhd->bihd", torch.where(dropped, 0.0, inner) / 0.7, values)
    assert_close(out, rebuilt)
    # An entry that is invisible and dropped is -0.0: the sign is the only trace.
    invisible = inner == 0
    assert invisible[:, :, 0, 126:].all() and dropped[invisible].any() and not dropped[invisible].all()


def test_s_dmask_of_packed_sequences():
    cu_q, cu_k = cumulative([3, 5]), cumulative([7, 4])
    q, k, v = randn(8, 2, 8, seed=1), randn(11, 2, 8, seed=2), randn(11, 2, 8, seed=3)
    torch.manual_seed(5)
    out, _, probabilities = fa.flash_attn_varlen_func(
        q, k, v, cu_q, cu_k, 5, 7, dropout_p=0.4, causal=True, return_attn_probs=True
    )
    assert probabilities.shape == (2, 2, 128, 128)
    torch.manual_seed(5)
    *_, rng_state = interface._flash_attn_varlen_forward(q, k, v, cu_q, cu_k, 5, 7, 0.4, 8**-0.5, True)
    masks = [keep_tensor(2, 2, n, m, 0.4, rng_state)[b] for b, (n, m) in enumerate(((3, 7), (5, 4)))]
    expected, _ = packed(q, k, v, cu_q, cu_k, causal=True, keep=masks, dropout=0.4)
    assert_close(out, expected)
    for b, mask in enumerate(masks):
        rows, keys = mask.shape[1:]
        assert torch.equal(~torch.signbit(probabilities[b, :, :rows, :keys]), mask)
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_varlen_func(q, k, v, cu_q, cu_k, 0, 0, dropout_p=0.4, return_attn_probs=True)
    assert "max_seqlen" in caught.value.field


def test_s_dmask_of_pages_is_that_of_the_same_keys_in_a_row():
    q, k, v = randn(5, 2, 8, seed=1), randn(12, 2, 8, seed=2), randn(12, 2, 8, seed=3)
    cu_q, cu_k = cumulative([2, 3]), cumulative([7, 4])
    table = torch.tensor([[2, 0], [1, 0]], dtype=torch.int32)
    pages = [torch.zeros(3, 4, 2, 8) for _ in range(2)]
    for pool, rows in zip(pages, (k, v)):
        pool[2], pool[0, :3], pool[1] = rows[:4], rows[4:7], rows[7:11]
    torch.manual_seed(5)
    *_, packed_probs = fa.flash_attn_varlen_func(
        q, k[:11], v[:11], cu_q, cu_k, 3, 7, dropout_p=0.4, causal=True, return_attn_probs=True)
    torch.manual_seed(5)
    *_, paged_probs = fa.flash_attn_varlen_func(
        q, *pages, cu_q, cu_k, 3, 7, dropout_p=0.4, causal=True, return_attn_probs=True, block_table=table)
    assert torch.equal(packed_probs, paged_probs)
    assert torch.equal(torch.signbit(packed_probs), torch.signbit(paged_probs))


def test_s_dmask_counts_keys_behind_the_left_padding():
    q, k, v = randn(3, 2, 8, seed=1), randn(9, 2, 8, seed=2), randn(9, 2, 8, seed=3)
    padded = interface._flash_attn_varlen_forward(
        q, k, v, cumulative([3]), cumulative([9]), 3, 9, 0.4, 0.3, True, return_softmax=True,
        leftpad_k=torch.tensor([4], dtype=torch.int32))[2]
    plain = interface._flash_attn_varlen_forward(
        q, k[4:], v[4:], cumulative([3]), cumulative([5]), 3, 5, 0.4, 0.3, True, return_softmax=True)[2]
    assert torch.allclose(padded.abs(), plain.abs(), atol=1e-6)


def test_s_dmask_is_empty_unless_there_is_dropout_and_it_was_asked_for():
    q = randn(1, 4, 2, 8)
    assert fa.flash_attn_func(q, q, q, return_attn_probs=True)[2].shape == (0,)
    assert interface._flash_attn_forward(q, q, q, 0.5, 0.3, False, -1, -1, 0.0, None, False)[2].shape == (0,)
    assert isinstance(fa.flash_attn_func(q, q, q, dropout_p=0.5), torch.Tensor)


def test_s_dmask_past_the_size_limit_is_refused_before_any_work():
    q = torch.zeros(1, 4096, 8, 1)
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_func(q, q, q, dropout_p=0.5, return_attn_probs=True)
    assert caught.value.field == "return_attn_probs" and str(_dropout.MAX_PROBABILITIES) in caught.value.expected


def test_softcap_and_alibi_work_with_dropout():
    q, k, v = (randn(2, 5, 2, 8, seed=s) for s in (1, 2, 3))
    slopes = torch.tensor([0.5, 0.1])
    out, _, probabilities = fa.flash_attn_func(
        q, k, v, dropout_p=0.25, softcap=1.5, alibi_slopes=slopes, window_size=(3, 1), return_attn_probs=True
    )
    mask = ~torch.signbit(probabilities[:, :, :5, :5])
    expected, _ = dense(q, k, v, softcap=1.5, slopes=slopes, window=(3, 1), keep=mask, dropout=0.25)
    assert_close(out, expected)
