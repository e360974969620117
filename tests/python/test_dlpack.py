"""Tensors of libraries that regard does not know by name: through DLPack, old and new, and the buffer protocol."""

import ctypes
import gc
import sys

import numpy as np
import pytest

import oracle
import regard

Q, K, V = oracle.normal(1, 3, 4, 16), oracle.normal(1, 5, 2, 16), oracle.normal(1, 5, 2, 16)
WANT = regard.attention(Q, K, V)


class Newer:
    """Speaks DLPack 1: __dlpack__ takes max_version."""

    def __init__(self, array):
        self.array = array
        self.asked = []

    def __dlpack__(self, **options):
        self.asked.append(options)
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Older(Newer):
    """Speaks DLPack 0.x: __dlpack__ takes a stream and nothing else."""

    def __dlpack__(self, stream=None):
        self.asked.append(stream)
        return self.array.__dlpack__()


class OnDevice(Newer):
    device = (2, 1)

    def __dlpack_device__(self):
        return self.device


class WithNamespace(Newer):
    """A result comes back through the array API's from_dlpack."""

    def __array_namespace__(self):
        class Namespace:
            @staticmethod
            def from_dlpack(exported):
                return WithNamespace(np.from_dlpack(exported))

        return Namespace


@pytest.mark.parametrize("kind", [Newer, Older])
def test_any_exporter_is_read_and_gets_an_exporter_back(kind):
    q, k, v = kind(Q), kind(K), kind(V)
    out = regard.attention(q, k, v)
    assert len(q.asked) == len(k.asked) == len(v.asked) == 1
    assert np.array_equal(np.from_dlpack(out), WANT)


def test_result_goes_back_into_the_callers_library():
    out, lse = regard.attention(WithNamespace(Q), K, V, return_lse=True)
    assert type(out) is WithNamespace and np.array_equal(out.array, WANT)
    assert lse.array.shape == (1, 4, 3)


def test_exported_result_keeps_its_memory():
    out = regard.attention(Newer(Q), K, V)
    array = np.from_dlpack(out)
    del out
    gc.collect()
    regard.attention(Newer(Q), K, V)
    assert np.array_equal(array, WANT)


def test_exporters_write_in_place():
    room = np.zeros_like(WANT)
    target = Newer(room)
    assert regard.attention(Q, K, V, out=target) is target
    assert np.array_equal(room, WANT)


def test_read_only_exporter_is_not_written_to():
    room = np.zeros_like(WANT)
    room.flags.writeable = False
    with pytest.raises(regard.Error) as caught:
        regard.attention(Q, K, V, out=Newer(room))
    assert caught.value.field == "out"
    with pytest.raises(regard.Error) as caught:
        regard.attention(Q, K, V, out=room)
    assert caught.value.field == "out"


@pytest.mark.parametrize("device, name", [((2, 1), "cuda:1"), ((10, 0), "rocm:0"), ((8, 0), "metal:0"), ((99, 3), "99:3")])
def test_tensor_on_another_device_is_refused_by_its_name(device, name):
    k = OnDevice(K)
    k.device = device
    with pytest.raises(regard.Error) as caught:
        regard.attention(Q, k, V)
    assert caught.value.field == "k" and name in caught.value.value
    assert not k.asked


def test_exporter_that_raises_is_named():
    class Broken(Newer):
        def __dlpack__(self, **options):
            raise BufferError("nothing to see")

    with pytest.raises(regard.Error) as caught:
        regard.attention(Q, Broken(K), V)
    assert caught.value.field == "k" and "nothing to see" in caught.value.value

    class NoCapsule(Newer):
        def __dlpack__(self, **options):
            return 3

    with pytest.raises(regard.Error) as caught:
        regard.attention(Q, K, NoCapsule(V))
    assert caught.value.field == "v"


def test_buffers_of_python_are_read():
    q = memoryview(Q)
    k = (ctypes.c_float * 160).from_buffer_copy(K.tobytes())
    assert np.array_equal(regard.attention(q, memoryview(k).cast("B").cast("f", (1, 5, 2, 16)), V), WANT)


def test_calls_hold_on_to_nothing():
    newer = Newer(K)
    before = [sys.getrefcount(x) for x in (Q, K, V, newer)]
    for _ in range(100):
        regard.attention(Q, K, V, return_lse=True)
        regard.attention(Q, newer, V)
        newer.asked.clear()
    assert [sys.getrefcount(x) for x in (Q, K, V, newer)] == before


def test_memory_does_not_grow():
    import resource

    q, k = oracle.normal(1, 512, 8, 64), oracle.normal(1, 1, 8, 64)  # results of 1 MiB that cost little
    for _ in range(50):
        regard.attention(q, k, k, return_lse=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        regard.attention(q, k, k, return_lse=True)
        regard.attention(Newer(q), k, k)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB; a leak would be 600 MiB


def test_jax_arrays():
    jax = pytest.importorskip("jax")
    q, k, v = (jax.numpy.asarray(x) for x in (Q, K, V))
    out = regard.attention(q, k, v)
    assert isinstance(out, jax.Array) and np.array_equal(np.asarray(out), WANT)
    half = regard.attention(*(x.astype(jax.numpy.bfloat16) for x in (q, k, v)))
    assert isinstance(half, jax.Array) and half.dtype == jax.numpy.bfloat16
