"""layers.rotary and ops.triton.rotary against plain torch in f64, in place and not, with gradients."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import assert_close, cumulative, gradients_of, randn, rotate, table  # noqa: E402
from regard.flash_attn.layers import rotary  # noqa: E402
from regard.flash_attn.ops.triton.rotary import apply_rotary  # noqa: E402


@pytest.mark.parametrize(
    "interleaved, inplace, half, offsets",
    itertools.product([False, True], [False, True], [8, 3], [0, 4, torch.tensor([2, 0, 5])]),
)
def test_apply_rotary_emb_turns_by_position_and_its_gradient_turns_back(interleaved, inplace, half, offsets):
    x = randn(3, 6, 2, 16)
    cos, sin = table(11, half)
    shifts = offsets[:, None] if isinstance(offsets, torch.Tensor) else offsets
    positions = (torch.arange(6) + shifts).expand(3, 6)
    expected = rotate(x, cos, sin, positions, interleaved)
    leaf = x.clone().requires_grad_()
    out = rotary.apply_rotary_emb(leaf, cos, sin, interleaved, inplace, seqlen_offsets=offsets)
    assert_close(out, expected)
    assert torch.equal(leaf.detach(), out.detach() if inplace else x)
    dout = randn(*out.shape, seed=4)
    given = dout.clone()
    (grad,) = torch.autograd.grad(out, leaf, given)
    assert torch.equal(given, dout)
    assert_close(grad, rotate(dout, cos, -sin, positions, interleaved))


def test_apply_rotary_emb_pairs_halves_unless_told_otherwise():
    x = randn(1, 4, 1, 8)
    cos, sin = table(4, 4)
    default = rotary.apply_rotary_emb(x, cos, sin)
    assert torch.equal(default, rotary.apply_rotary_emb(x, cos, sin, interleaved=False))
    assert not torch.equal(default, rotary.apply_rotary_emb(x, cos, sin, interleaved=True))
    assert rotary.apply_rotary_emb_func is rotary.apply_rotary_emb


@pytest.mark.parametrize("offsets", [0, 3, torch.tensor([1, 2, 0, 4])])
def test_packed_sequences_begin_at_their_offsets(offsets):
    lengths = [3, 0, 5, 1]
    cu = cumulative(lengths)
    x = randn(11, 2, 8, grad=True)  # two tokens past the last sequence
    cos, sin = table(9, 4)
    shifts = offsets.tolist() if isinstance(offsets, torch.Tensor) else [offsets] * 4
    positions = torch.cat([torch.arange(n) + s for n, s in zip(lengths, shifts)])
    out = rotary.apply_rotary_emb(x, cos, sin, seqlen_offsets=offsets, cu_seqlens=cu, max_seqlen=5)
    assert_close(out[:9], rotate(x[:9], cos, sin, positions, False))
    assert torch.equal(out[9:], x[9:])
    assert_close(gradients_of(out[:9].sum(), x)[0][:9], rotate(torch.ones(9, 2, 8), cos, -sin, positions, False))


def test_half_precision_is_computed_in_f32_and_rounded_once():
    x = randn(2, 5, 2, 32, dtype=torch.bfloat16)
    cos, sin = table(5, 16, torch.bfloat16)
    exact = rotate(x, cos, sin, torch.arange(5).expand(2, 5), False)
    out = rotary.apply_rotary_emb(x, cos, sin)
    assert out.dtype == torch.bfloat16
    assert (out.double() - exact).abs().max() <= exact.abs().max() * 2**-8


def test_apply_rotary_conjugate_undoes_and_inplace_returns_its_argument():
    x = randn(2, 5, 2, 8)
    cos, sin = table(5, 4)
    there = apply_rotary(x, cos, sin, interleaved=True)
    assert_close(apply_rotary(there, cos, sin, interleaved=True, conjugate=True), x)
    assert apply_rotary(there, cos, sin, inplace=True) is there


@pytest.mark.parametrize("own_k", [False, True])
@pytest.mark.parametrize("heads_q", [None, 4])
def test_qkv_in_place_turns_q_and_k_and_leaves_v(heads_q, own_k):
    qkv = randn(2, 5, 3, 2, 8) if heads_q is None else randn(2, 5, heads_q + 2 * 2, 8)
    cos, sin = table(9, 4)
    cos_k, sin_k = (cos * 0.5, sin * 0.5) if own_k else (None, None)
    positions = (torch.arange(5) + 3).expand(2, 5)

    def parts(x):
        return x.unbind(2) if heads_q is None else x.split([heads_q, 2, 2], 2)

    q, k, v = (p.clone() for p in parts(qkv))
    leaf = qkv.clone().requires_grad_()
    out = rotary.apply_rotary_emb_qkv_(leaf, cos, sin, cos_k, sin_k, seqlen_offsets=3, num_heads_q=heads_q)
    assert torch.equal(leaf.detach(), out.detach())
    turned = (
        rotate(q, cos, sin, positions, False),
        rotate(k, cos * 0.5 if own_k else cos, sin * 0.5 if own_k else sin, positions, False),
        v,
    )
    for got, want in zip(parts(out), turned):
        assert_close(got, want)
    dout = randn(*out.shape, seed=4)
    (grad,) = torch.autograd.grad(out, leaf, dout)
    for index, (got, want) in enumerate(zip(parts(grad), parts(dout))):
        if index == 2:
            assert torch.equal(got, want)
        else:
            c, s = (cos * 0.5, sin * 0.5) if own_k and index == 1 else (cos, sin)
            assert_close(got, rotate(want, c, -s, positions, False))


@pytest.mark.parametrize("interleaved", [False, True])
def test_kv_in_place_turns_k_and_leaves_v(interleaved):
    kv = randn(2, 5, 2, 3, 8)
    cos, sin = table(7, 3)
    offsets = torch.tensor([2, 0])
    positions = torch.arange(5) + offsets[:, None]
    leaf = kv.clone().requires_grad_()
    out = rotary.apply_rotary_emb_kv_(leaf, cos, sin, interleaved, offsets)
    assert torch.equal(leaf.detach(), out.detach())
    assert_close(out[:, :, 0], rotate(kv[:, :, 0], cos, sin, positions, interleaved))
    assert torch.equal(out[:, :, 1], kv[:, :, 1])
    dout = randn(*out.shape, seed=4)
    (grad,) = torch.autograd.grad(out, leaf, dout)
    assert_close(grad[:, :, 0], rotate(dout[:, :, 0], cos, -sin, positions, interleaved))
    assert torch.equal(grad[:, :, 1], dout[:, :, 1])


@pytest.mark.parametrize("interleaved", [False, True])
def test_torch_form_and_rotate_half(interleaved):
    x = randn(2, 5, 2, 8, grad=True)
    cos, sin = table(5, 3)
    expected = rotate(x, cos, sin, torch.arange(5).expand(2, 5), interleaved)
    assert_close(rotary.apply_rotary_emb_torch(x, cos, sin, interleaved), expected)
    per_row = cos.expand(2, 5, 3), sin.expand(2, 5, 3)
    assert_close(rotary.apply_rotary_emb_torch(x, *per_row, interleaved), expected)
    y = torch.arange(4.0)
    assert rotary.rotate_half(y).tolist() == [-2, -3, 0, 1]
    assert rotary.rotate_half(y, interleaved=True).tolist() == [-1, 0, -3, 2]


def angles(positions, dim, base):
    freqs = torch.outer(positions.double(), base ** (-torch.arange(0, dim, 2).double() / dim))
    return freqs.cos(), freqs.sin()


@pytest.mark.parametrize("offset", [0, 3])
def test_rotary_embedding_makes_its_tables_as_it_goes(offset):
    module = rotary.RotaryEmbedding(8, base=500.0, interleaved=True)
    cos, sin = angles(torch.arange(12), 8, 500.0)
    for length in (4, 9):
        qkv = randn(2, length, 3, 2, 8)
        q, k, _ = (x.clone() for x in qkv.unbind(2))
        out = module(qkv, seqlen_offset=offset)
        positions = (torch.arange(length) + offset).expand(2, length)
        assert_close(out[:, :, 0], rotate(q, cos, sin, positions, True))
        assert_close(out[:, :, 1], rotate(k, cos, sin, positions, True))
    assert module._seq_len_cached == 9 + offset
    assert not module.state_dict()


def test_rotary_embedding_of_q_and_kv_with_offsets_per_sequence():
    module = rotary.RotaryEmbedding(8)
    cos, sin = angles(torch.arange(9), 8, 10000.0)
    q, kv = randn(2, 4, 4, 8), randn(2, 4, 2, 2, 8)
    q_before, k_before = q.clone(), kv[:, :, 0].clone()
    offsets = torch.tensor([5, 1])
    with pytest.raises(regard.Error) as caught:
        module(q, kv, seqlen_offset=offsets)
    assert caught.value.field == "max_seqlen"
    q_out, kv_out = module(q, kv, seqlen_offset=offsets, max_seqlen=9)
    positions = torch.arange(4) + offsets[:, None]
    assert_close(q_out, rotate(q_before, cos, sin, positions, False))
    assert_close(kv_out[:, :, 0], rotate(k_before, cos, sin, positions, False))


def test_rotary_embedding_with_scale_base_scales_q_up_and_k_down():
    module = rotary.RotaryEmbedding(8, scale_base=512.0)
    q, kv = randn(1, 6, 2, 8), randn(1, 6, 2, 2, 8)
    q_before, k_before = q.clone(), kv[:, :, 0].clone()
    q_out, kv_out = module(q, kv)
    cos, sin = angles(torch.arange(6), 8, 10000.0)
    base = (torch.arange(0, 8, 2).double() + 0.4 * 8) / (1.4 * 8)
    scale = base ** ((torch.arange(6).double() - 3) / 512)[:, None]
    positions = torch.arange(6)[None]
    assert_close(q_out, rotate(q_before, cos * scale, sin * scale, positions, False))
    assert_close(kv_out[:, :, 0], rotate(k_before, cos / scale, sin / scale, positions, False))


def test_rotary_embedding_keeps_f32_angles_in_a_half_precision_model():
    module = rotary.RotaryEmbedding(8).to(torch.bfloat16)
    qkv = randn(1, 300, 3, 1, 8, dtype=torch.bfloat16)
    q = qkv[:, :, 0].clone()
    out = module(qkv)
    cos, sin = angles(torch.arange(300), 8, 10000.0)
    assert_close(out[:, :, 0], rotate(q, cos, sin, torch.arange(300)[None], False), torch.bfloat16)


@pytest.mark.parametrize(
    "field, change",
    [
        ("seqlen_offsets", {"seqlen_offsets": 3}),
        ("seqlen_offsets", {"seqlen_offsets": torch.tensor([0, -1])}),
        ("sin", {"sin": table(6, 2)[1]}),
        ("cos", {"cos": table(6, 9)[0], "sin": table(6, 9)[1]}),
    ],
)
def test_refusals_name_the_argument(field, change):
    cos, sin = table(6, 4)
    with pytest.raises(regard.Error) as caught:
        apply_rotary(**{"x": randn(2, 4, 1, 16), "cos": cos, "sin": sin, **change})
    assert caught.value.field == field and caught.value.expected
    with pytest.raises(regard.Error) as caught:
        rotary.apply_rotary_emb_qkv_(randn(1, 4, 8, 8), cos, sin)
    assert caught.value.field == "num_heads_q"
