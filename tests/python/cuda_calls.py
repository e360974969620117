"""Calls on tensors of a GPU, run by cuda_test.py on a driver whose GPU is emulated (an A100)."""

import numpy as np
import pytest

import oracle
import regard
from fake_gpu import GpuArray, TableArray, fetch, the_driver

RNG = np.random.default_rng(3)


def normal(*shape, dtype=np.float16):
    return RNG.standard_normal(shape).astype(dtype)


Q, K, V = normal(2, 20, 2, 64), normal(2, 40, 1, 64), normal(2, 40, 1, 64)
WANT, WANT_LSE = oracle.dense(Q, K, V, causal=True)


def near(got, want):
    assert got.shape == want.shape and np.abs(got.astype(np.float64) - want).max() < 5e-3


@pytest.fixture(params=[GpuArray, TableArray])
def kind(request):
    TableArray.made.clear()
    TableArray.stream = 0
    return request.param


def host(result):
    return result.numpy() if isinstance(result, GpuArray) else fetch(result)


def test_the_gpu_is_listed():
    gpu, = regard.gpus()
    assert "A100" in gpu.name and gpu.compute_capability == (8, 0) and not gpu.missing and gpu.memory_bytes > 1 << 30


def test_attention_computes_on_the_gpu_and_its_result_is_there(kind):
    out, lse = regard.attention(kind(Q), kind(K), kind(V), causal=True, return_lse=True)
    near(host(out), WANT)
    near(host(lse), WANT_LSE)


def test_f32_goes_to_the_plain_kernels(kind):
    q, k, v = (x.astype(np.float32) for x in (Q, K, V))
    near(host(regard.attention(kind(q), kind(k), kind(v), causal=True)), WANT)


def test_result_is_written_where_the_caller_wants_it(kind):
    out = kind(np.zeros_like(Q))
    assert regard.attention(kind(Q), kind(K), kind(V), causal=True, out=out) is out
    near(out.numpy(), WANT)


def test_packed_sequences_with_bounds_of_their_lengths(kind):
    starts = kind(np.array([0, 20, 40], np.int32))
    starts_kv = kind(np.array([0, 40, 80], np.int32))
    out = regard.varlen_attention(kind(Q.reshape(40, 2, 64)), kind(K.reshape(80, 1, 64)), kind(V.reshape(80, 1, 64)),
                                  starts, starts_kv, causal=True, max_seqlen_q=20, max_seqlen_kv=40)
    near(host(out), WANT.reshape(40, 2, 64))


def test_cache_in_pages_is_read_through_a_table_on_the_gpu(kind):
    pages_k, pages_v = K.reshape(5, 16, 1, 64)[::-1].copy(), V.reshape(5, 16, 1, 64)[::-1].copy()
    table = np.array([[4, 3, 2], [2, 1, 0]], np.int32)  # the third page of a row is half used, or not at all
    lengths = np.array([40, 17], np.int32)
    q = Q[:, :1]
    out = regard.with_kvcache(kind(q), kind(pages_k), kind(pages_v), cache_seqlens=kind(lengths),
                              block_table=kind(table))
    for b in range(2):
        keys = np.concatenate([pages_k[p] for p in table[b]])[None, :lengths[b]]
        values = np.concatenate([pages_v[p] for p in table[b]])[None, :lengths[b]]
        near(host(out)[b:b + 1], oracle.dense(q[b:b + 1], keys, values)[0])


def test_partial_results_are_merged_on_the_gpu(kind):
    first = oracle.dense(Q, K[:, :16], V[:, :16])
    second = oracle.dense(Q, K[:, 16:], V[:, 16:])
    parts = [kind(x.astype(t)) for part in (first, second) for x, t in zip(part, (np.float16, np.float32))]
    out, lse = regard.merge_states(*parts)
    want, want_lse = oracle.dense(Q, K, V)
    near(host(out), want)
    near(host(lse), want_lse)


def test_gradients(kind):
    q, k, v = (x.astype(np.float32) for x in (Q, K, V))
    want = regard.attention_backward(np.ones_like(q), q, k, v, *regard.attention(q, k, v, return_lse=True))
    out, lse = regard.attention(kind(q), kind(k), kind(v), return_lse=True)
    got = regard.attention_backward(kind(np.ones_like(q)), kind(q), kind(k), kind(v), kind(host(out)), kind(host(lse)))
    for mine, theirs in zip(got[:3], want[:3]):
        near(host(mine), theirs)


def test_arrays_are_asked_for_the_default_stream():
    q = GpuArray(Q)
    regard.attention(q, GpuArray(K), GpuArray(V))
    assert q.asked[0]["stream"] == 1
    assert the_driver().last_stream() == 0


def test_a_library_that_tells_its_stream_gets_its_work_there():
    TableArray.stream = the_driver().new_stream()
    k = GpuArray(K)
    out = regard.attention(TableArray(Q), k, TableArray(V), causal=True)
    assert the_driver().last_stream() == TableArray.stream
    assert k.asked[0]["stream"] == TableArray.stream, "a tensor of another library is made ready there"
    near(out.numpy(), WANT)


def test_results_and_scratch_memory_come_from_the_library_of_q():
    TableArray.made.clear()
    q, k, v = TableArray(Q[:, :1]), TableArray(normal(2, 4100, 1, 64)), TableArray(normal(2, 4100, 1, 64))
    out = regard.attention(q, k, v)
    assert out is TableArray.made[0]
    assert [array.dtype.name for array in TableArray.made] == ["float16", "uint8"]


def test_a_result_waits_for_a_consumer_on_another_stream():
    out = regard.attention(GpuArray(Q), GpuArray(K), GpuArray(V), causal=True)
    for stream in (None, 1, -1, the_driver().new_stream()):
        near(fetch(out, stream), WANT)


def test_a_result_goes_back_through_the_array_namespace():
    class WithNamespace(GpuArray):
        def __array_namespace__(self):
            class Namespace:
                @staticmethod
                def from_dlpack(exported):
                    return fetch(exported)

            return Namespace

    near(regard.attention(WithNamespace(Q), GpuArray(K), GpuArray(V), causal=True), WANT)


@pytest.mark.parametrize("place", range(3))
def test_tensors_in_several_places_are_refused_by_name(kind, place):
    tensors = [kind(x) for x in (Q, K, V)]
    tensors[place] = (Q, K, V)[place]
    with pytest.raises(regard.Error) as caught:
        regard.attention(*tensors)
    assert caught.value.field == ("k" if place == 0 else "qkv"[place])
    assert "cuda:0" in str(caught.value) and "host memory" in str(caught.value)


def test_a_list_of_lengths_is_refused_since_it_lies_on_the_host(kind):
    with pytest.raises(regard.Error) as caught:
        regard.with_kvcache(kind(Q[:, :1]), kind(K), kind(V), cache_seqlens=[40, 40])
    assert caught.value.field == "cache_seqlens" and "cuda:0" in caught.value.expected


def test_a_bad_entry_of_a_table_is_raised_by_the_next_call_once(kind):
    q, k, v = kind(Q[:, :1]), kind(K), kind(V)
    lengths = np.array([40, 41], np.int32)
    regard.with_kvcache(q, k, v, cache_seqlens=kind(lengths))
    with pytest.raises(regard.Error) as caught:
        regard.attention(q, k, v)
    assert caught.value.field == "cuda.tables" and "cache_seqlens" in caught.value.value
    regard.attention(q, k, v)
    regard.with_kvcache(q, k, v, cache_seqlens=kind(lengths))
    with pytest.raises(regard.Error):
        regard.check_device(q)
    regard.check_device(q)
    regard.check_device(0)


def test_explain_answers_for_the_tensors_and_for_a_named_gpu():
    q, k, v = GpuArray(Q), GpuArray(K), GpuArray(V)
    assert regard.explain(regard.attention, q, k, v).chosen == "cuda.sm80.prefill.f16"
    reasons = {r.kernel: r.reason for r in regard.explain(q, k, v).rejected}
    assert "cuda" in reasons["cpu.scalar.prefill.f16"]
    assert regard.explain("prefill sq=20 skv=40 hq=2 hkv=1 d=64 dtype=f16", device="cuda").chosen.startswith("cuda.sm80")
    assert {kernel.name for kernel in regard.list_kernels() if kernel.here} >= {"cuda.sm80.prefill.f16"}


def test_a_kernel_of_the_cpu_is_refused_for_a_gpu():
    with pytest.raises(regard.Error) as caught:
        regard.attention(GpuArray(Q), GpuArray(K), GpuArray(V), kernel="cpu")
    assert caught.value.field == "kernel" and "cuda" in str(caught.value)


def test_maps_are_for_the_host():
    with pytest.raises(regard.Error) as caught:
        regard.attention_probabilities(GpuArray(Q), GpuArray(K), GpuArray(V))
    assert caught.value.field == "q" and "host memory" in caught.value.expected


def test_no_such_gpu():
    class Second(GpuArray):
        def __dlpack_device__(self):
            return 2, 1

        def tensor(self):
            tensor = super().tensor()
            tensor.device.id = 1
            return tensor

    with pytest.raises(regard.Error) as caught:
        regard.attention(Second(Q), Second(K), Second(V))
    assert caught.value.field == "device"


def test_empty_tensors(kind):
    out = regard.attention(kind(Q[:, :0]), kind(K), kind(V))
    assert host(out).shape == (2, 0, 2, 64)
    assert not host(regard.attention(kind(Q), kind(K[:, :0]), kind(V[:, :0]))).any()


def test_int64_tables_are_refused(kind):
    with pytest.raises(regard.Error) as caught:
        regard.with_kvcache(kind(Q[:, :1]), kind(K), kind(V), cache_seqlens=kind(np.array([40, 40], np.int64)))
    assert caught.value.field == "cache_seqlens" and "int64" in caught.value.value
