"""attention_probabilities and dropout_mask: against attention itself, the page semantics.md, and their limits."""

import numpy as np
import pytest

import oracle
import regard

OPTIONS = {
    "plain": {},
    "causal window": {"causal": True, "window": (4, None)},
    "dropout": {"dropout": 0.4, "seed": 7, "offset": 3},
    "all": {"causal": True, "softcap": 2.0, "leftpad": [2, 0], "dropout": 0.2, "seed": 9, "seqused_q": [3, 5],
            "seqused_kv": [11, 4], "alibi_slopes": np.array([0.1, 0.2, 0.3, 0.4], np.float32)},
}


def tensors(rows=5, keys=11, value_width=6):
    return (oracle.normal(2, rows, 4, 8, seed=1), oracle.normal(2, keys, 2, 8, seed=2),
            oracle.normal(2, keys, 2, value_width, seed=3))


def outcome(probabilities, kept, v, dropout):
    """(B, Sq, Hq, Dv) of maps and dense values."""
    values = np.repeat(np.asarray(v, np.float64), probabilities.shape[1] // v.shape[2], 2)
    return np.einsum("bhij,bjhd->bihd", probabilities.astype(np.float64) * kept / (1 - dropout), values)


@pytest.mark.parametrize("name", OPTIONS)
def test_probabilities_times_the_mask_times_the_values_are_the_output(name):
    q, k, v = tensors()
    options = OPTIONS[name]
    probabilities, kept = regard.attention_probabilities(q, k, v, **options), regard.dropout_mask(q, k, v, **options)
    assert probabilities.dtype == np.float32 and kept.dtype == np.bool_
    assert probabilities.shape == kept.shape == (2, 4, 5, 11)
    out = regard.attention(q, k, v, **options)
    assert oracle.error(out, outcome(probabilities, kept, v, options.get("dropout", 0))) < 2e-5


def test_probabilities_do_not_depend_on_dropout_and_the_mask_not_on_what_is_hidden():
    q, k, v = tensors()
    drop = OPTIONS["dropout"]
    assert np.array_equal(regard.attention_probabilities(q, k, v), regard.attention_probabilities(q, k, v, **drop))
    mask = regard.dropout_mask(q, k, v, **drop)
    assert np.array_equal(mask, regard.dropout_mask(q, k, v, causal=True, window=(1, 0), **drop))
    assert not np.array_equal(mask, regard.dropout_mask(q, k, v, **{**drop, "seed": 8}))
    assert regard.dropout_mask(q, k, v).all() and not regard.dropout_mask(q, k, v, dropout=1.0).any()


def test_the_share_of_kept_entries_is_one_minus_p():
    q, k, v = oracle.normal(3, 70, 4, 2), oracle.normal(3, 101, 4, 2), oracle.normal(3, 101, 4, 2)
    for p in (0.1, 0.5, 0.9):
        kept = regard.dropout_mask(q, k, v, dropout=p, seed=1234)
        assert abs(kept.mean() - (1 - p)) < 5 * (p * (1 - p) / kept.size) ** 0.5


def test_a_sink_takes_its_part_and_a_blind_row_is_zero():
    q, k, v = tensors(rows=3, keys=2)
    rows = regard.attention_probabilities(q, k, v, causal=True).sum(-1)
    assert (rows[:, :, 0] == 0).all() and np.allclose(rows[:, :, 1:], 1, atol=1e-6)
    assert (regard.attention_probabilities(q, k, v, sink=np.zeros(4, np.float32)).sum(-1) < 0.99).all()


def test_packed_sequences_have_the_longest_lengths_and_zeros_beyond_their_own():
    q, k, v = oracle.normal(8, 4, 8, seed=1), oracle.normal(11, 2, 8, seed=2), oracle.normal(11, 2, 8, seed=3)
    drop = {"dropout": 0.3, "seed": 5}
    maps = [call(q, k, v, [0, 3, 8], [0, 7, 11], causal=True, **drop)
            for call in (regard.attention_probabilities, regard.dropout_mask)]
    assert maps[0].shape == maps[1].shape == (2, 4, 5, 7)
    for b, (first, rows, begin, keys) in enumerate(((0, 3, 0, 7), (3, 5, 7, 4))):
        own = regard.attention_probabilities(q[None, first:first + rows], k[None, begin:begin + keys],
                                             v[None, begin:begin + keys], causal=True)
        assert np.array_equal(maps[0][b, :, :rows, :keys], own[0])
        for m in maps:
            assert not m[b, :, rows:].any() and not m[b, :, :, keys:].any()


def test_pages_and_a_cache_give_what_dense_keys_give():
    q, k, v = tensors(rows=2, keys=8, value_width=8)
    q, k, v = q[:1], k[:1], v[:1]
    options = {"causal": True, "dropout": 0.5, "seed": 2}
    order = np.array([[3, 0, 2, 1]], np.int32)
    pages = [np.empty((4, 2, 2, 8), np.float32) for _ in range(2)]
    for pool, rows in zip(pages, (k, v)):
        pool[order[0]] = rows[0, :8].reshape(4, 2, 2, 8)
    for call in (regard.attention_probabilities, regard.dropout_mask):
        dense = call(q, k[:, :7], v[:, :7], **options)
        paged = call(q[0], *pages, [0, 2], block_table=order, seqlens_kv=[7], **options)
        cached = call(q, k, v, cache_seqlens=[7], **options)
        table = call(q, *pages, cache_seqlens=[7], block_table=order, **options)
        for other in (paged, cached, table):
            assert np.array_equal(dense, other[:, :, :, :7])


def test_torch_in_torch_out():
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x).bfloat16().requires_grad_() for x in tensors())
    probabilities, kept = regard.attention_probabilities(q, k, v), regard.dropout_mask(q, k, v, dropout=0.5)
    assert probabilities.dtype == torch.float32 and kept.dtype == torch.bool
    assert torch.allclose(probabilities.sum(-1), torch.ones(2, 4, 5), atol=1e-5)


@pytest.mark.parametrize("rows, keys, batch", [(0, 5, 2), (3, 0, 2), (3, 4, 0)])
def test_empty_sequences_give_empty_maps(rows, keys, batch):
    q, k, v = (x[:batch] for x in tensors(rows, keys))
    for call in (regard.attention_probabilities, regard.dropout_mask):
        assert call(q, k, v, dropout=0.5).shape == (batch, 4, rows, keys)


@pytest.mark.parametrize("call, size", [(regard.attention_probabilities, "of f32, 2048 MiB"),
                                        (regard.dropout_mask, "of bool, 512 MiB")])
def test_a_map_past_the_limit_is_refused_with_its_size(call, size):
    q = np.broadcast_to(np.float32(1), (1, 1 << 14, 2, 8)).copy()
    with pytest.raises(regard.Error) as caught:
        call(q, q, q)
    assert caught.value.value == f"(1, 2, 16384, 16384) {size}"
    assert caught.value.expected.startswith("at most 256 MiB")


def test_wrong_arguments_are_refused_as_by_the_calls():
    q, k, v = tensors()
    with pytest.raises(regard.Error) as caught:
        regard.attention_probabilities(q, k[..., :7], v)
    assert caught.value.field == "k.shape[3]"
    for name, value in (("kernel", "reference"), ("return_lse", True), ("k_new", k), ("causl", True)):
        with pytest.raises(regard.UsageError) as caught:
            regard.dropout_mask(q, k, v, **{name: value})
        assert caught.value.field == name
