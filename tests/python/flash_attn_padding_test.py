"""bert_padding: from padded batches to packed tokens and back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import assert_close, dense, gradients_of, randn  # noqa: E402
from regard import flash_attn as fa  # noqa: E402
from regard.flash_attn import bert_padding  # noqa: E402

LENGTHS = [4, 0, 7, 2]
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.int64], ids=str)
def test_unpad_gives_five_values_and_pad_undoes_it(kind):
    x = randn(4, 7, 3, 5, grad=True)
    states, indices, cu_seqlens, longest, used = bert_padding.unpad_input(x, MASK.to(kind))
    assert torch.equal(states, x[MASK])
    assert torch.equal(indices, MASK.flatten().nonzero().flatten())
    assert cu_seqlens.tolist() == [0, 4, 4, 11, 13] and cu_seqlens.dtype == torch.int32
    assert longest == 7 and type(longest) is int
    assert used.tolist() == LENGTHS and used.dtype == torch.int32
    back = bert_padding.pad_input(states, indices, 4, 7)
    assert torch.equal(back, torch.where(MASK[:, :, None, None], x, 0.0))
    assert torch.equal(gradients_of(back.sum(), x)[0], MASK[:, :, None, None].expand_as(x).float())


def test_unused_tokens_are_packed_but_not_counted():
    unused = torch.zeros_like(MASK)
    unused[0, 4:6] = unused[1, 0] = True
    x = randn(4, 7, 2)
    states, indices, cu_seqlens, longest, used = bert_padding.unpad_input(x, MASK.int(), unused.int())
    assert states.shape == (16, 2) and len(indices) == 16
    assert cu_seqlens.tolist() == [0, 6, 7, 14, 16] and longest == 7
    assert used.tolist() == LENGTHS


def test_padding_on_the_left_keeps_the_order_of_tokens():
    mask = MASK.flip(1)
    x = randn(4, 7, 2)
    states, indices, cu_seqlens, _, _ = bert_padding.unpad_input(x, mask)
    assert torch.equal(states[4:11], x[2]) and cu_seqlens.tolist() == [0, 4, 4, 11, 13]
    assert torch.equal(bert_padding.pad_input(states, indices, 4, 7), torch.where(mask[:, :, None], x, 0.0))


def test_an_empty_batch_and_a_batch_of_padding():
    states, indices, cu_seqlens, longest, used = bert_padding.unpad_input(randn(0, 5, 2), torch.zeros(0, 5))
    assert states.shape == (0, 2) and len(indices) == 0 and cu_seqlens.tolist() == [0] and longest == 0
    states, _, cu_seqlens, longest, _ = bert_padding.unpad_input(randn(2, 5, 2), torch.zeros(2, 5))
    assert states.shape == (0, 2) and cu_seqlens.tolist() == [0, 0, 0] and longest == 0


def test_concatenated_sequences_are_cut_at_their_lengths():
    lengths = torch.tensor([[2, 3, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0]])
    x = randn(3, 6, 2)
    states, indices, cu_seqlens, longest = bert_padding.unpad_input_for_concatenated_sequences(x, lengths)
    assert cu_seqlens.tolist() == [0, 2, 5, 8, 10, 16] and cu_seqlens.dtype == torch.int32 and longest == 6
    assert torch.equal(states, torch.cat((x[0, :5], x[1, :5], x[2])))
    assert indices.tolist() == [*range(5), *range(6, 11), *range(12, 18)]


def test_index_first_axis_and_its_siblings_are_differentiable():
    x, indices = randn(6, 2, 3, grad=True), torch.tensor([4, 1, 1])
    rows = bert_padding.index_first_axis(x, indices)
    assert torch.equal(rows, x[indices])
    assert gradients_of(rows.sum(), x)[0][:, 0, 0].tolist() == [0, 2, 0, 0, 1, 0]
    values = randn(2, 3, grad=True)
    put = bert_padding.index_put_first_axis(values, torch.tensor([3, 0]), 5)
    assert torch.equal(put[3], values[0]) and torch.equal(put[0], values[1]) and (put[[1, 2, 4]] == 0).all()
    assert (gradients_of(put.sum(), values)[0] == 1).all()
    rows, residual = bert_padding.index_first_axis_residual(x, indices)
    assert torch.equal(residual, x)
    assert gradients_of(rows.sum() + residual.sum(), x)[0][:, 0, 0].tolist() == [1, 3, 1, 1, 2, 1]


def test_a_padded_batch_through_varlen_attention_equals_each_row_alone():
    qkv = randn(4, 7, 3, 2, 8, grad=True)
    states, indices, cu_seqlens, longest, _ = bert_padding.unpad_input(qkv, MASK)
    out = fa.flash_attn_varlen_qkvpacked_func(states, cu_seqlens, longest, causal=True)
    padded = bert_padding.pad_input(out, indices, 4, 7)
    expected, _ = dense(*qkv.unbind(2), used_q=LENGTHS, used_k=LENGTHS, causal=True)
    assert_close(padded, expected)
    assert_close(gradients_of(padded.square().sum(), qkv)[0], gradients_of(expected.square().sum(), qkv)[0], factor=3)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(regard.Error) as caught:
        bert_padding.unpad_input(randn(2, 5, 3), torch.ones(2, 6))
    assert caught.value.field == "attention_mask"
