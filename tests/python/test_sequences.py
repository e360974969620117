"""Packed sequences, pages of every size, and caches that grow, on NumPy arrays against float64."""

import numpy as np
import pytest

import oracle
import regard

LENGTHS_Q, LENGTHS_KV = [5, 0, 17, 1], [9, 4, 17, 30]
HEADS, GROUPS, D, DV = 4, 2, 24, 40


def ends(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def packed():
    q = oracle.normal(sum(LENGTHS_Q), HEADS, D, seed=1)
    k = oracle.normal(sum(LENGTHS_KV), GROUPS, D, seed=2)
    v = oracle.normal(sum(LENGTHS_KV), GROUPS, DV, seed=3)
    return q, k, v


def each_sequence(q, k, v, **options):
    """out and lse, packed again."""
    at_q, at_k = ends(LENGTHS_Q), ends(LENGTHS_KV)
    parts = [oracle.sequence(q[at_q[b]:at_q[b + 1]], k[at_k[b]:at_k[b + 1]], v[at_k[b]:at_k[b + 1]], **options)
             for b in range(len(LENGTHS_Q))]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts], axis=1)


def pages(k, v, size, layout="NHD"):
    """Pools in a shuffled order, with NaN where no key is; the block table; and the same as CSR."""
    at = ends(LENGTHS_KV)
    counts = [-(-n // size) for n in LENGTHS_KV]
    order = np.random.default_rng(5).permutation(sum(counts) + 2).astype(np.int32)
    table = np.full((len(counts), max(counts) + 1), -1, np.int32)
    pools = [np.full((len(order), size, GROUPS, x.shape[2]), np.nan, np.float32) for x in (k, v)]
    used = 0
    for b, count in enumerate(counts):
        table[b, :count] = order[used:used + count]
        for t in range(LENGTHS_KV[b]):
            for pool, x in zip(pools, (k, v)):
                pool[table[b, t // size], t % size] = x[at[b] + t]
        used += count
    if layout == "HND":
        pools = [np.ascontiguousarray(pool.transpose(0, 2, 1, 3)) for pool in pools]
    last = np.array([(n - 1) % size + 1 for n in LENGTHS_KV], np.int32)
    return pools, table, (ends(counts), order[:used].copy(), last)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": (3, None), "softcap": 4.0}])
def test_packed_sequences_agree_with_float64(options):
    q, k, v = packed()
    out, lse = regard.varlen_attention(q, k, v, ends(LENGTHS_Q), ends(LENGTHS_KV), return_lse=True, **options)
    want, want_lse = each_sequence(q, k, v, **options)
    assert out.shape == want.shape and lse.shape == want_lse.shape
    assert oracle.error(out, want) < 2e-5 and oracle.error(lse, want_lse) < 2e-5


def test_lengths_may_be_lists():
    q, k, v = packed()
    arrays = regard.varlen_attention(q, k, v, ends(LENGTHS_Q), ends(LENGTHS_KV))
    lists = regard.varlen_attention(q, k, v, ends(LENGTHS_Q).tolist(), tuple(ends(LENGTHS_KV).tolist()))
    assert np.array_equal(arrays, lists)


@pytest.mark.parametrize("size", [1, 3, 16, 64])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_pages_have_the_bits_of_packed_keys(size, layout):
    q, k, v = packed()
    want = regard.varlen_attention(q, k, v, ends(LENGTHS_Q), ends(LENGTHS_KV), causal=True)
    pools, table, (indptr, indices, last) = pages(k, v, size, layout)
    block = regard.varlen_attention(q, *pools, ends(LENGTHS_Q), block_table=table, seqlens_kv=LENGTHS_KV, causal=True,
                                    kv_layout=layout)
    assert np.array_equal(block, want)
    csr = regard.varlen_attention(q, *pools, ends(LENGTHS_Q), kv_indptr=indptr, kv_indices=indices,
                                  kv_last_page_len=last, causal=True, kv_layout=layout)
    assert np.array_equal(csr, want)


def rotated(x, cos, sin, interleaved):
    """x (S, H, D), angles (S, R): the first 2R of D turned."""
    r = cos.shape[1]
    turned, rest = x[..., :2 * r].astype(np.float64), x[..., 2 * r:]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else (turned[..., :r], turned[..., r:])
    c, s = cos[:, None], sin[:, None]
    left, right = a * c - b * s, a * s + b * c
    both = np.stack([left, right], -1).reshape(turned.shape) if interleaved else np.concatenate([left, right], -1)
    return np.concatenate([both, rest], -1)


@pytest.mark.parametrize("rotary", ["none", "half", "interleaved"])
@pytest.mark.parametrize("size", [None, 4])
def test_new_tokens_are_appended_and_attended(rotary, size):
    batch, rows, capacity = 3, 2, 32
    lens = np.array([0, 7, 29], np.int32)
    q = oracle.normal(batch, rows, HEADS, D, seed=21)
    new_k, new_v = oracle.normal(batch, rows, GROUPS, D, seed=22), oracle.normal(batch, rows, GROUPS, DV, seed=23)
    k = oracle.normal(batch, capacity, GROUPS, D, seed=24)
    v = oracle.normal(batch, capacity, GROUPS, DV, seed=25)
    angles = oracle.normal(capacity + rows, 8, seed=26)
    cos, sin = np.cos(angles), np.sin(angles)
    options = {} if rotary == "none" else {"rotary": rotary, "rotary_cos": cos, "rotary_sin": sin}
    want_k, want_v, out_want = k.copy(), v.copy(), []
    for b, n in enumerate(lens):
        span = slice(n, n + rows)
        turn = (lambda x: x) if rotary == "none" else (lambda x: rotated(x, cos[span], sin[span], rotary == "interleaved"))
        want_k[b, span], want_v[b, span] = turn(new_k[b]), new_v[b]
        out_want.append(oracle.sequence(turn(q[b]), want_k[b, :n + rows], want_v[b, :n + rows], causal=True)[0])
    if size is not None:
        order = np.random.default_rng(3).permutation(batch * capacity // size)
        table = order.reshape(batch, capacity // size).astype(np.int32)
        pool_k, pool_v = np.empty((len(order), size, GROUPS, D), np.float32), np.empty((len(order), size, GROUPS, DV), np.float32)
        pool_k[table.ravel()] = k.reshape(-1, size, GROUPS, D)
        pool_v[table.ravel()] = v.reshape(-1, size, GROUPS, DV)
        before = lens.copy()
        out = regard.with_kvcache(q, pool_k, pool_v, new_k, new_v, cache_seqlens=lens, block_table=table, causal=True, **options)
        k, v = pool_k[table.ravel()].reshape(k.shape), pool_v[table.ravel()].reshape(v.shape)
        assert np.array_equal(lens, before)
    else:
        out = regard.with_kvcache(q, k, v, new_k, new_v, cache_seqlens=lens, causal=True, **options)
    assert oracle.error(out, np.stack(out_want)) < 2e-5
    assert np.abs(k - want_k).max() < 1e-6 and np.array_equal(v, want_v)


def test_cache_rows_are_picked_by_index():
    k, v = oracle.normal(5, 16, GROUPS, D, seed=31), oracle.normal(5, 16, GROUPS, DV, seed=32)
    q = oracle.normal(2, 1, HEADS, D, seed=33)
    out = regard.with_kvcache(q, k, v, cache_seqlens=[16, 3], cache_batch_idx=[4, 1])
    want = oracle.dense(q, k[[4, 1]], v[[4, 1]], seqused_kv=[16, 3])[0]
    assert oracle.error(out, want) < 2e-5


def test_append_that_does_not_fit_leaves_the_cache_as_it_was():
    k, v = oracle.normal(2, 8, GROUPS, D, seed=41), oracle.normal(2, 8, GROUPS, DV, seed=42)
    before = k.copy(), v.copy()
    with pytest.raises(regard.Error):
        regard.with_kvcache(oracle.normal(2, 1, HEADS, D), k, v, oracle.normal(2, 1, GROUPS, D),
                            oracle.normal(2, 1, GROUPS, DV), cache_seqlens=[7, 8])
    assert np.array_equal(k, before[0]) and np.array_equal(v, before[1])


def test_read_only_cache_may_be_read_and_not_appended_to():
    k, v = oracle.normal(1, 8, GROUPS, D, seed=51), oracle.normal(1, 8, GROUPS, DV, seed=52)
    k.flags.writeable = v.flags.writeable = False
    q = oracle.normal(1, 1, HEADS, D)
    regard.with_kvcache(q, k, v, cache_seqlens=[8])
    with pytest.raises(regard.Error) as caught:
        regard.with_kvcache(q, k, v, oracle.normal(1, 1, GROUPS, D), oracle.normal(1, 1, GROUPS, DV), cache_seqlens=[3])
    assert caught.value.field == "k_cache"
