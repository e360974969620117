"""flash_attn_with_kvcache (version 2) against plain torch in f64: append, rotary, pages, cache rows, left padding."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
from flash_attn_support import assert_close, dense, fa2_lse, paged_copy, randn, rotate  # noqa: E402
from flash_attn_support import table as rotary_table  # noqa: E402
from regard import flash_attn as fa  # noqa: E402

B, S, HQ, HKV, D = 3, 24, 4, 2, 16
USED = [5, 0, 17]


def caches(dtype=torch.float32, rows=B):
    return randn(rows, S, HKV, D, dtype=dtype, seed=2), randn(rows, S, HKV, D, dtype=dtype, seed=3)


def lengths(values=tuple(USED)):
    return torch.tensor(values, dtype=torch.int32)


def with_new(cache, new, used):
    """The cache after an append, as it should be."""
    cache = cache.clone()
    for b, n in enumerate(used):
        cache[b, n : n + new.shape[1]] = new[b].to(cache.dtype)
    return cache


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window_size": (3, 1), "softcap": 2.0}], ids=str)
@pytest.mark.parametrize("rows", [1, 4])
def test_reads_the_used_part_of_a_cache(rows, options):
    q = randn(B, rows, HQ, D, seed=1)
    k_cache, v_cache = caches()
    before = k_cache.clone(), v_cache.clone()
    out, lse = fa.flash_attn_with_kvcache(
        q, k_cache, v_cache, cache_seqlens=lengths(), return_softmax_lse=True, softmax_scale=0.3, **options
    )
    names = {"causal": "causal", "window_size": "window", "softcap": "softcap"}
    expected, expected_lse = dense(
        q, k_cache, v_cache, used_k=USED, scale=0.3, **{names[n]: o for n, o in options.items()}
    )
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))
    assert torch.equal(k_cache, before[0]) and torch.equal(v_cache, before[1])


@pytest.mark.parametrize("new", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_appends_in_place_before_attending(dtype, new):
    q = randn(B, new, HQ, D, dtype=dtype, seed=1)
    k, v = randn(B, new, HKV, D, dtype=dtype, seed=5), randn(B, new, HKV, D, dtype=dtype, seed=6)
    k_cache, v_cache = caches(dtype)
    k_after, v_after = with_new(k_cache, k, USED), with_new(v_cache, v, USED)
    seqlens = lengths()
    out = fa.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens=seqlens, causal=True)
    assert torch.equal(k_cache, k_after) and torch.equal(v_cache, v_after)
    assert torch.equal(seqlens, lengths())
    expected, _ = dense(q, k_after, v_after, used_k=[n + new for n in USED], causal=True)
    assert out.dtype == dtype
    assert_close(out, expected, dtype)


@pytest.mark.parametrize(
    "interleaved, options, rotary_dim",
    itertools.product([True, False], [{}, {"causal": True}, {"window_size": (6, 2)}], [D, 8, 6]),
)
def test_rotary_turns_new_keys_and_queries(interleaved, options, rotary_dim):
    q, k, v = (randn(B, 2, h, D, seed=s) for h, s in ((HQ, 1), (HKV, 5), (HKV, 6)))
    cos, sin = rotary_table(S, rotary_dim // 2)
    k_cache, v_cache = caches()
    positions = torch.tensor(USED)[:, None] + torch.arange(2)
    k_after = with_new(k_cache, rotate(k, cos, sin, positions, interleaved), USED)
    v_after = with_new(v_cache, v, USED)
    out = fa.flash_attn_with_kvcache(
        q, k_cache, v_cache, k, v, rotary_cos=cos, rotary_sin=sin, cache_seqlens=lengths(),
        rotary_interleaved=interleaved, **options,
    )
    # Not causal and not local: all queries stand at one place, the end of the cache.
    turned = rotate(q, cos, sin, positions if options else positions[:, :1].expand(B, 2), interleaved)
    names = {"causal": "causal", "window_size": "window"}
    expected, _ = dense(
        turned, k_after, v_after, used_k=[n + 2 for n in USED], **{names[n]: o for n, o in options.items()}
    )
    assert_close(k_cache, k_after)
    assert_close(out, expected)


def test_rotary_is_interleaved_unless_told_otherwise():
    q, k, v = (randn(1, 1, h, D, seed=s) for h, s in ((HQ, 1), (HKV, 5), (HKV, 6)))
    cos, sin = rotary_table(S, D // 2)
    results = []
    for options in ({}, {"rotary_interleaved": True}, {"rotary_interleaved": False}):
        k_cache, v_cache = caches(rows=1)
        fa.flash_attn_with_kvcache(
            q, k_cache, v_cache, k, v, rotary_cos=cos, rotary_sin=sin, cache_seqlens=lengths((5,)), **options
        )
        results.append(k_cache)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_rotary_window_wider_than_the_cache_still_counts_as_local():
    q, k, v = (randn(1, 3, h, D, seed=s) for h, s in ((HQ, 1), (HKV, 5), (HKV, 6)))
    cos, sin = rotary_table(S, D // 2)
    k_cache, v_cache = caches(rows=1)
    out = fa.flash_attn_with_kvcache(
        q, k_cache, v_cache, k, v, rotary_cos=cos, rotary_sin=sin, cache_seqlens=lengths((5,)), window_size=(100, 100)
    )
    turned = rotate(q, cos, sin, torch.arange(5, 8)[None], True)
    assert_close(out, dense(turned, k_cache, v_cache, used_k=[8])[0])


def test_rotary_tables_of_another_type_and_shorter_than_the_cache():
    q, k, v = (randn(1, 1, h, D, dtype=torch.bfloat16, seed=s) for h, s in ((HQ, 1), (HKV, 5), (HKV, 6)))
    cos, sin = rotary_table(6, D // 2, torch.float16)
    k_cache, v_cache = caches(torch.bfloat16, rows=1)
    fa.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cos, sin, cache_seqlens=lengths((5,)))
    assert_close(k_cache[:, 5:6], rotate(k, cos, sin, torch.tensor([[5]]), True), torch.bfloat16)
    with pytest.raises(regard.Error):
        fa.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cos, sin, cache_seqlens=lengths((6,)))


@pytest.mark.parametrize("page_size", [1, 5, 16, 256])
@pytest.mark.parametrize("append", [False, True])
def test_pages_of_any_size(page_size, append):
    q = randn(B, 2, HQ, D, seed=1)
    k_cache, v_cache = caches()
    (k_pages, pages), (v_pages, _) = paged_copy(k_cache, USED, page_size), paged_copy(v_cache, USED, page_size)
    new, used = (), USED
    if append:
        new = randn(B, 2, HKV, D, seed=5), randn(B, 2, HKV, D, seed=6)
        k_cache, v_cache = with_new(k_cache, new[0], USED), with_new(v_cache, new[1], USED)
        used = [n + 2 for n in USED]
    out, lse = fa.flash_attn_with_kvcache(
        q, k_pages, v_pages, *new, cache_seqlens=lengths(), block_table=pages, causal=True, return_softmax_lse=True
    )
    expected, expected_lse = dense(q, k_cache, v_cache, used_k=used, causal=True)
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))
    for b, n in enumerate(used):
        for j in range(n):
            assert torch.equal(k_pages[pages[b, j // page_size], j % page_size], k_cache[b, j])


def test_block_table_entries_beyond_the_sequence_may_hold_anything():
    k_cache, v_cache = caches()
    (k_pages, pages), (v_pages, _) = paged_copy(k_cache, USED, 4), paged_copy(v_cache, USED, 4)
    pages[0, 2:], pages[1, :] = -1, 10**6
    q = randn(B, 1, HQ, D, seed=1)
    out = fa.flash_attn_with_kvcache(q, k_pages, v_pages, cache_seqlens=lengths(), block_table=pages)
    assert_close(out, dense(q, k_cache, v_cache, used_k=USED)[0])


@pytest.mark.parametrize("paged", [False, True])
def test_cache_batch_idx_picks_rows_of_the_cache_or_of_the_block_table(paged):
    index, used = [3, 0], [9, 4]
    q = randn(2, 1, HQ, D, seed=1)
    k, v = randn(2, 1, HKV, D, seed=5), randn(2, 1, HKV, D, seed=6)
    k_cache, v_cache = caches(rows=4)
    all_used = [4, 0, 0, 9]
    extra = {}
    k_held, v_held = k_cache, v_cache
    if paged:
        (k_held, pages), (v_held, _) = paged_copy(k_cache, all_used, 4), paged_copy(v_cache, all_used, 4)
        extra["block_table"] = pages
    out = fa.flash_attn_with_kvcache(
        q, k_held, v_held, k, v, cache_seqlens=lengths(used), cache_batch_idx=torch.tensor(index), **extra
    )
    if paged:
        k_cache, v_cache = k_cache.clone(), v_cache.clone()
        for b, row in enumerate(index):
            k_cache[row, used[b]], v_cache[row, used[b]] = k[b, 0], v[b, 0]
    assert torch.equal(k_cache[3, 9], k[0, 0]) and torch.equal(v_cache[0, 4], v[1, 0])
    expected, _ = dense(q, k_cache[index], v_cache[index], used_k=[n + 1 for n in used])
    assert_close(out, expected)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window_size": (4, 0)}], ids=str)
def test_left_padding_hides_the_first_keys_and_counts_inside_cache_seqlens(options):
    pad = [2, 0, 11]
    q = randn(B, 2, HQ, D, seed=1)
    k_cache, v_cache = caches()
    out, lse = fa.flash_attn_with_kvcache(
        q, k_cache, v_cache, cache_seqlens=lengths(), cache_leftpad=torch.tensor(pad, dtype=torch.int32),
        return_softmax_lse=True, **options,
    )
    names = {"causal": "causal", "window_size": "window"}
    expected, expected_lse = dense(
        q, k_cache, v_cache, used_k=USED, leftpad=pad, **{names[n]: o for n, o in options.items()}
    )
    assert_close(out, expected)
    assert_close(lse, fa2_lse(expected_lse))


def test_lse_of_causal_alibi_counts_positions_from_the_left_padding():
    pad, used = [2, 0, 11], [6, 3, 17]
    q, k, v = (randn(B, 2, h, D, seed=s) for h, s in ((HQ, 1), (HKV, 5), (HKV, 6)))
    slopes = randn(HQ, seed=8).abs()
    k_cache, v_cache = caches()
    out, lse = fa.flash_attn_with_kvcache(
        q, k_cache, v_cache, k, v, cache_seqlens=lengths(used), cache_leftpad=torch.tensor(pad, dtype=torch.int32),
        causal=True, alibi_slopes=slopes, return_softmax_lse=True,
    )
    expected, plain = dense(
        q, k_cache, v_cache, used_k=[n + 2 for n in used], leftpad=pad, causal=True, slopes=slopes
    )
    p = torch.arange(2) + torch.tensor(used)[:, None] - torch.tensor(pad)[:, None]
    assert_close(out, expected)
    assert_close(lse, plain + slopes[None, :, None] * p[:, None, :])
    _, windowed = fa.flash_attn_with_kvcache(
        q, k_cache, v_cache, cache_seqlens=lengths(used), causal=True, window_size=(S - 1, -1), alibi_slopes=slopes,
        return_softmax_lse=True,
    )
    assert_close(windowed, dense(q, k_cache, v_cache, used_k=used, causal=True, slopes=slopes)[1])


def test_cache_seqlens_may_be_a_number_or_absent():
    q = randn(B, 1, HQ, D, seed=1)
    k_cache, v_cache = caches()
    out = fa.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=7)
    assert_close(out, dense(q, k_cache, v_cache, used_k=[7] * B)[0])
    out = fa.flash_attn_with_kvcache(q, k_cache, v_cache)
    assert_close(out, dense(q, k_cache, v_cache)[0])
    k_pages, pages = paged_copy(k_cache, [S] * B, 8)
    v_pages, _ = paged_copy(v_cache, [S] * B, 8)
    assert_close(fa.flash_attn_with_kvcache(q, k_pages, v_pages, block_table=pages), dense(q, k_cache, v_cache)[0])


def test_a_query_that_requires_grad_is_taken_and_the_result_has_none():
    q = randn(B, 1, HQ, D, grad=True)
    k_cache, v_cache = caches()
    out, lse = fa.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=lengths(), return_softmax_lse=True)
    assert not out.requires_grad and not lse.requires_grad
    k = randn(B, 1, HKV, D, grad=True)
    assert not fa.flash_attn_with_kvcache(q, k_cache, v_cache, k, k, cache_seqlens=lengths()).requires_grad
    assert torch.equal(k_cache[0, USED[0]], k[0, 0])


def test_non_contiguous_caches_are_written_where_they_lie():
    whole = randn(B, HKV, S, 2, D, seed=2)
    before = whole.clone()
    k_cache, v_cache = whole[..., 0, :].transpose(1, 2), whole[..., 1, :].transpose(1, 2)
    assert not k_cache.is_contiguous() and k_cache.stride(-1) == 1
    k, v = randn(B, 1, HKV, D, seed=5), randn(B, 1, HKV, D, seed=6)
    q = randn(B, 1, HQ, D, seed=1)
    out = fa.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens=lengths())
    for b, n in enumerate(USED):
        before[b, :, n, 0], before[b, :, n, 1] = k[b, 0], v[b, 0]
    assert torch.equal(whole, before)
    assert_close(out, dense(q, k_cache, v_cache, used_k=[n + 1 for n in USED])[0])


@pytest.mark.parametrize("num_splits", [0, 1, 3])
def test_num_splits_changes_no_bit(num_splits):
    q = randn(B, 1, HQ, D, seed=1)
    k_cache, v_cache = caches()
    out = fa.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=lengths(), num_splits=num_splits)
    assert torch.equal(out, fa.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=lengths()))


def refused(field, *args, **kwargs):
    with pytest.raises(regard.Error) as caught:
        fa.flash_attn_with_kvcache(*args, **kwargs)
    assert caught.value.field == field, str(caught.value)
    assert caught.value.expected
    return caught.value


def test_refusals_name_the_argument_and_write_nothing():
    q, k = randn(B, 1, HQ, D, seed=1), randn(B, 1, HKV, D, seed=5)
    cos, sin = rotary_table(S, D // 2)
    k_cache, v_cache = caches()
    before = k_cache.clone()
    refused("cache_seqlens", q, k_cache, v_cache, k, k)
    refused("k", q, k_cache, v_cache, rotary_cos=cos, rotary_sin=sin, cache_seqlens=lengths())
    refused("k_cache", q, k_cache.transpose(2, 3), v_cache, cache_seqlens=lengths())
    # flash-attn writes past the row here; regard refuses the append that does not fit.
    with pytest.raises(regard.Error):
        fa.flash_attn_with_kvcache(q, k_cache, v_cache, k, k, cache_seqlens=lengths((5, S, 17)))
    # Two sequences that would write the same slot.
    with pytest.raises(regard.Error):
        fa.flash_attn_with_kvcache(
            q, k_cache, v_cache, k, k, cache_seqlens=lengths((4, 4, 4)), cache_batch_idx=torch.tensor([0, 1, 0])
        )
    assert torch.equal(k_cache, before)


def test_an_empty_batch():
    k_cache, v_cache = caches()
    out = fa.flash_attn_with_kvcache(
        randn(0, 1, HQ, D), k_cache[:0], v_cache[:0], cache_seqlens=torch.zeros(0, dtype=torch.int32)
    )
    assert out.shape == (0, 1, HQ, D)
