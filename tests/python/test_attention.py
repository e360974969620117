"""regard.attention on NumPy arrays against float64."""

import ml_dtypes
import numpy as np
import pytest

import oracle
import regard

OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"window": (5, 2)},
    "left window": {"causal": True, "window": (4, None)},
    "right window": {"window": (None, 3)},
    "chunk": {"causal": True, "chunk": 7},
    "softcap": {"softcap": 3.0},
    "scale": {"scale": -0.7},
    "zero scale": {"scale": 0},
    "alibi": {"alibi_slopes": np.linspace(0.1, 0.6, 6, dtype=np.float32)},
    "bias": {"bias": oracle.normal(2, 6, 20, 33, seed=8)},
    "broadcast bias": {"bias": oracle.normal(1, 6, 1, 33, seed=9)},
    "bool mask": {"mask": oracle.normal(2, 1, 20, 33, seed=10) > 0},
    "byte mask": {"mask": (oracle.normal(1, 1, 20, 33, seed=11) > 0).astype(np.uint8)},
    "sink": {"sink": oracle.normal(6, seed=12)},
    "left padding": {"causal": True, "leftpad": np.array([3, 0], np.int32)},
    "offset": {"causal": True, "q_offset": np.array([0, 30], np.int32)},
    "used lengths": {"causal": True, "seqused_q": [7, 20], "seqused_kv": [33, 12]},
    "second query": {"qv": oracle.normal(2, 20, 6, 24, seed=13)},
    "everything": {"causal": True, "window": (9, None), "softcap": 5.0, "sink": oracle.normal(6, seed=14),
                   "mask": oracle.normal(1, 6, 20, 33, seed=15) > -1, "leftpad": [1, 4]},
}


def tensors(rows=20, keys=33, heads=6, groups=3, width=40, value_width=24, batch=2):
    return (oracle.normal(batch, rows, heads, width, seed=1), oracle.normal(batch, keys, groups, width, seed=2),
            oracle.normal(batch, keys, groups, value_width, seed=3))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_agrees_with_float64(name):
    q, k, v = tensors()
    options = OPTIONS[name]
    out, lse = regard.attention(q, k, v, return_lse=True, **options)
    want, want_lse = oracle.dense(q, k, v, **options)
    assert out.dtype == np.float32 and lse.dtype == np.float32
    assert oracle.error(out, want) < 2e-5
    assert oracle.error(lse, want_lse) < 2e-5


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (1, 100, 4, 1, 64, 64), (40, 7, 5, 5, 17, 3), (3, 64, 8, 2, 512, 96)])
def test_odd_sizes_agree_with_float64(shape):
    q, k, v = tensors(*shape)
    assert oracle.error(regard.attention(q, k, v), oracle.dense(q, k, v)[0]) < 2e-5


@pytest.mark.parametrize("dtype, bound", [(np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)])
def test_sixteen_bit_arrays_come_back_in_their_type(dtype, bound):
    q, k, v = (x.astype(dtype) for x in tensors())
    out, lse = regard.attention(q, k, v, causal=True, return_lse=True)
    assert type(out) is np.ndarray and out.dtype == dtype and lse.dtype == np.float32
    want, want_lse = oracle.dense(q, k, v, causal=True)
    assert oracle.error(out, want) < bound
    assert oracle.error(lse, want_lse) < 2e-3


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_fp8_keys_are_scaled_back(dtype):
    q, k, v = tensors()
    k, v = k.astype(dtype), v.astype(dtype)
    scales = [np.abs(oracle.normal(2, 3, seed=s)) + 0.5 for s in (4, 5)]
    out = regard.attention(q, k, v, k_descale=scales[0], v_descale=scales[1])
    plain = [x.astype(np.float32) * s[:, None, :, None] for x, s in zip((k, v), scales)]
    assert oracle.error(out, oracle.dense(q, *plain)[0]) < 1e-4


def test_fp8_queries_give_bf16():
    q, k, v = (x.astype(ml_dtypes.float8_e4m3fn) for x in tensors())
    out = regard.attention(q, k, v)
    assert out.dtype == ml_dtypes.bfloat16
    assert oracle.error(out, oracle.dense(q, k, v)[0]) < 2e-2


def test_strided_views_are_read_in_place():
    q, k, v = tensors()
    want = regard.attention(q, k, v, causal=True)
    heads_first = [np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for x in (q, k, v)]
    assert not heads_first[0].flags.c_contiguous
    assert np.array_equal(regard.attention(*heads_first, causal=True), want)
    backwards = [x[::-1, ::-1] for x in (q[::-1, ::-1].copy(), k[::-1, ::-1].copy(), v[::-1, ::-1].copy())]
    assert np.array_equal(regard.attention(*backwards, causal=True), want)


def test_broadcast_keys_are_read_in_place():
    q, k, v = tensors()
    one_k, one_v = np.broadcast_to(k[:1], k.shape), np.broadcast_to(v[:1], v.shape)
    assert np.array_equal(regard.attention(q, one_k, one_v), regard.attention(q, one_k.copy(), one_v.copy()))


def test_result_goes_into_out():
    q, k, v = tensors()
    want = regard.attention(q, k, v)
    room = np.full((2, 6, 20, 24), np.nan, np.float32)
    out = room.transpose(0, 2, 1, 3)
    assert regard.attention(q, k, v, out=out) is out
    assert np.array_equal(out, want)
    half = np.empty(want.shape, np.float16)
    regard.attention(q, k, v, out=half)
    assert np.array_equal(half, want.astype(np.float16))


@pytest.mark.parametrize("wanted", ["bf16", "bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_result_type_may_be_named_in_any_way(wanted):
    q, k, v = tensors()
    out = regard.attention(q, k, v, out_dtype=wanted)
    assert out.dtype == ml_dtypes.bfloat16
    assert np.array_equal(out, regard.attention(q, k, v).astype(ml_dtypes.bfloat16))


def test_row_that_sees_nothing_is_zero_and_minus_infinity():
    q, k, v = tensors(rows=33, keys=20)
    out, lse = regard.attention(q, k, v, causal=True, return_lse=True)
    assert (out[:, :13] == 0).all() and (lse[:, :, :13] == -np.inf).all()
    assert np.isfinite(out).all() and np.isfinite(lse[:, :, 13:]).all()


@pytest.mark.parametrize("batch, rows, keys", [(0, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_empty_tensors_are_fine(batch, rows, keys):
    q, k, v = tensors(rows=rows, keys=keys, batch=batch)
    out, lse = regard.attention(q, k, v, return_lse=True)
    assert out.shape == (batch, rows, 6, 24) and lse.shape == (batch, 6, rows)
    assert (out == 0).all() and (lse == -np.inf).all()


def test_dropout_repeats_with_its_seed():
    q, k, v = tensors()
    first = regard.attention(q, k, v, dropout=0.5, seed=3, offset=2**40)
    assert np.array_equal(first, regard.attention(q, k, v, dropout=0.5, seed=3, offset=2**40))
    assert not np.array_equal(first, regard.attention(q, k, v, dropout=0.5, seed=2**64 - 1, offset=2**40))
    assert (regard.attention(q, k, v, dropout=1) == 0).all()


def test_merged_halves_are_the_whole():
    q, k, v = tensors()
    left = regard.attention(q, k[:, :15], v[:, :15], return_lse=True)
    right = regard.attention(q, k[:, 15:], v[:, 15:], return_lse=True)
    out, lse = regard.merge_states(*left, *right)
    want, want_lse = oracle.dense(q, k, v)
    assert oracle.error(out, want) < 2e-5 and oracle.error(lse, want_lse) < 2e-5


def test_decoded_row_has_the_bits_of_the_prefill():
    q, k, v = tensors(rows=33)
    whole = regard.attention(q, k, v, causal=True)
    row = regard.attention(q[:, 20:21], k[:, :21], v[:, :21], causal=True)
    assert np.array_equal(row, whole[:, 20:21])
