"""Bad input: which error, which field, and that nothing was written."""

import pickle

import numpy as np
import pytest

import oracle
import regard

Q, K, V = oracle.normal(2, 4, 6, 16), oracle.normal(2, 8, 3, 16), oracle.normal(2, 8, 3, 16)

USAGE = {
    "missing tensor": (lambda: regard.attention(Q, K), "v"),
    "tensor that is None": (lambda: regard.attention(Q, None, V), "k"),
    "missing keyword": (lambda: regard.with_kvcache(Q, K, V), "cache_seqlens"),
    "unknown keyword": (lambda: regard.attention(Q, K, V, causl=True), "causl"),
    "keyword of another call": (lambda: regard.attention(Q, K, V, block_table=V), "block_table"),
    "given twice": (lambda: regard.attention(Q, K, V, q=Q), "q"),
    "too many": (lambda: regard.attention(Q, K, V, True), "attention"),
    "text for a tensor": (lambda: regard.attention("q", K, V), "q"),
    "list for a tensor": (lambda: regard.attention([[1.0]], K, V), "q"),
    "bytes for a tensor": (lambda: regard.attention(b"abc", K, V), "q"),
    "text for a number": (lambda: regard.attention(Q, K, V, scale="1"), "scale"),
    "text for a flag": (lambda: regard.attention(Q, K, V, causal="no"), "causal"),
    "number for a window": (lambda: regard.attention(Q, K, V, window=5), "window"),
    "fraction in a window": (lambda: regard.attention(Q, K, V, window=(1.5, 0)), "window[0]"),
    "three window sides": (lambda: regard.attention(Q, K, V, window=(1, 2, 3)), "window"),
    "array for a number": (lambda: regard.attention(Q, K, V, softcap=Q), "softcap"),
    "number for a kernel": (lambda: regard.attention(Q, K, V, kernel=3), "kernel"),
    "text in a list of lengths": (lambda: regard.varlen_attention(Q[0], K[0], V[0], [0, "4"], [0, 8]), "cu_seqlens_q[1]"),
    "unknown result type": (lambda: regard.attention(Q, K, V, out_dtype="float128"), "out_dtype"),
    "no case": (lambda: regard.explain(print, 3), "case"),
}

VALUES = {
    "double precision": (lambda: regard.attention(Q, K.astype(np.float64), V), "k", "float64"),
    "big-endian": (lambda: regard.attention(Q, K, V.astype(">f4")), "v", "big-endian"),
    "complex": (lambda: regard.attention(Q.astype(np.complex64), K, V), "q", "Zf"),
    "rank": (lambda: regard.attention(Q[0], K, V), "q", "(4, 6, 16)"),
    "six dims": (lambda: regard.attention(Q.reshape(1, 1, 2, 4, 6, 16), K, V), "q", "6 dimensions"),
    "heads": (lambda: regard.attention(Q[:, :, :5], K, V), "hq", "5"),
    "negative window": (lambda: regard.attention(Q, K, V, window=(-1, 0)), "window", "-1"),
    "dropout": (lambda: regard.attention(Q, K, V, dropout=1.5), "dropout", "1.5"),
    "seed": (lambda: regard.attention(Q, K, V, seed=-1), "seed", "-1"),
    "invariance": (lambda: regard.attention(Q, K, V, invariance="total"), "invariance", "total"),
    "layout": (lambda: regard.varlen_attention(Q[0], K[0], V[0], [0, 4], [0, 8], kv_layout="DHN"), "kv_layout", "DHN"),
    "unknown kernel": (lambda: regard.attention(Q, K, V, kernel="gpu"), "kernel", "gpu"),
    "unable kernel": (lambda: regard.attention(Q, K, V, kernel="cpu.scalar.prefill.bf16"), "kernel", ""),
    "out of another type": (lambda: regard.attention(Q, K, V, out=np.empty_like(Q), out_dtype="f16"), "out", "f32"),
    "out of another shape": (lambda: regard.attention(Q, K, V, out=np.empty((2, 4, 6, 15), np.float32)), "out", "15"),
    "stride in parts of elements": (
        lambda: regard.attention(Q, K, np.ndarray((2, 8, 3, 16), np.float32, bytearray(8000), 0, (2050, 192, 64, 4))),
        "v", "2050"),
    "lengths": (lambda: regard.varlen_attention(Q[0], K[0], V[0], [0, 5], [0, 8]), "cu_seqlens_q[1]", "5"),
    "huge length": (lambda: regard.varlen_attention(Q[0], K[0], V[0], [0, 2**40], [0, 8]), "cu_seqlens_q[1]", ""),
    "problem": (lambda: regard.explain("prefill b=1 sq=10 skv=10 hq=7 hkv=2 d=64"), "hq", "7"),
    "word of a problem": (lambda: regard.explain("prefill bb=1"), "case", "bb"),
    "isa": (lambda: regard.explain("decode skv=10", isa="sse"), "isa", "sse"),
    "checked kernel": (lambda: regard.check("decode skv=10", kernel="cpu.avx3"), "kernel", "cpu.avx3"),
}


@pytest.mark.parametrize("name", USAGE)
def test_misuse_is_a_usage_error(name):
    call, field = USAGE[name]
    with pytest.raises(regard.UsageError) as caught:
        call()
    assert caught.value.field == field
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, regard.Error)


@pytest.mark.parametrize("name", VALUES)
def test_bad_values_are_named(name):
    call, field, value = VALUES[name]
    with pytest.raises(regard.Error) as caught:
        call()
    error = caught.value
    assert error.field == field or error.field.startswith(field), error
    assert value in error.value, error
    assert error.expected and not isinstance(error, TypeError)
    assert isinstance(error, ValueError)


def test_message_has_all_three_parts():
    with pytest.raises(ValueError) as caught:
        regard.attention(Q[:, :, :5], K, V)
    error = caught.value
    assert str(error) == f"{error.field}: {error.value}; expected {error.expected}"


def test_nearest_name_is_offered():
    with pytest.raises(regard.UsageError) as caught:
        regard.attention(Q, K, V, soft_cap=3)
    assert "nearest is softcap" in caught.value.expected


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(regard.Error("k", "f64", "f32")))
    assert (error.field, error.value, error.expected) == ("k", "f64", "f32")
    assert isinstance(pickle.loads(pickle.dumps(regard.UsageError("k", "", "x"))), regard.UsageError)


def test_refused_call_writes_nothing():
    out = np.full((2, 4, 6, 16), 7, np.float32)
    with pytest.raises(regard.Error):
        regard.attention(Q, K, V, out=out, leftpad=[0, 9])
    assert (out == 7).all()


def test_out_may_not_overlap_an_input():
    room = Q.copy()
    with pytest.raises(regard.Error):
        regard.attention(room, K, V, out=room)
    assert np.array_equal(room, Q)


def test_refused_calls_leak_nothing():
    import sys

    before = sys.getrefcount(K)
    for _ in range(50):
        for call, *_ in [*USAGE.values(), *VALUES.values()]:
            with pytest.raises(regard.Error):
                call()
    assert sys.getrefcount(K) == before
    K.resize(K.shape, refcheck=False)  # no buffer is still borrowed
