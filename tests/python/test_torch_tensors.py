"""The calls on torch tensors: results, types, memory that is not copied."""

import numpy as np
import pytest

import oracle
import regard

torch = pytest.importorskip("torch")


def tensors(dtype=torch.float32):
    shapes = [(2, 20, 6, 40), (2, 33, 3, 40), (2, 33, 3, 24)]
    return tuple(torch.from_numpy(oracle.normal(*shape, seed=i)).to(dtype) for i, shape in enumerate(shapes))


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_tensors_in_give_tensors_out(dtype, bound):
    q, k, v = tensors(dtype)
    out, lse = regard.attention(q, k, v, causal=True, return_lse=True)
    assert type(out) is torch.Tensor and out.dtype == dtype and lse.dtype == torch.float32
    want, want_lse = oracle.dense(*(x.float().numpy() for x in (q, k, v)), causal=True)
    assert oracle.error(out.float().numpy(), want) < bound
    assert oracle.error(lse.numpy(), want_lse) < 2e-3


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_tensors(dtype):
    q, k, v = tensors()
    k, v = k.to(dtype), v.to(dtype)
    out = regard.attention(q, k, v)
    assert oracle.error(out.numpy(), oracle.dense(q.numpy(), k.float().numpy(), v.float().numpy())[0]) < 1e-4
    assert regard.attention(q.to(dtype), k, v).dtype == torch.bfloat16


def test_torch_and_numpy_have_the_same_bits():
    q, k, v = tensors()
    assert np.array_equal(regard.attention(q, k, v).numpy(), regard.attention(q.numpy(), k.numpy(), v.numpy()))


def test_inputs_are_read_where_they_lie():
    q, k, v = tensors()
    room = torch.full((2, 3, 33, 40), float("nan"))
    room.copy_(k.transpose(1, 2))
    out = regard.attention(q, room.transpose(1, 2), v)
    assert torch.equal(out, regard.attention(q, k, v))
    assert room.data_ptr() == room.transpose(1, 2).data_ptr()


def test_result_and_cache_are_written_where_they_lie():
    q, k, v = tensors()
    room = torch.zeros(2, 6, 20, 24)
    pointer = room.data_ptr()
    result = regard.attention(q, k, v, out=room.transpose(1, 2))
    assert result.data_ptr() == pointer == room.data_ptr()
    assert torch.equal(room.transpose(1, 2), regard.attention(q, k, v))
    cache = torch.zeros(2, 3, 40, 40).transpose(1, 2), torch.zeros(2, 40, 3, 24)
    pointers = [c.data_ptr() for c in cache]
    regard.with_kvcache(q[:, :1], *cache, k[:, :1], v[:, :1], cache_seqlens=torch.tensor([0, 39], dtype=torch.int32))
    assert [c.data_ptr() for c in cache] == pointers
    assert torch.equal(cache[0][1, 39], k[1, 0]) and torch.equal(cache[1][0, 0], v[0, 0])


def test_result_belongs_to_torch():
    q, k, v = tensors()
    out = regard.attention(q, k, v)
    before = out.clone()
    del q, k, v
    for _ in range(20):
        regard.attention(*tensors())
    assert torch.equal(out, before)
    out.add_(1)
    out.resize_(7)


def test_tensors_that_require_grad_are_read_detached():
    q, k, v = (x.requires_grad_() for x in tensors())
    out = regard.attention(q, k, v)
    assert not out.requires_grad
    assert torch.equal(out, regard.attention(*(torch.nn.Parameter(x) for x in (q, k, v))))
    with torch.no_grad():
        assert torch.equal(out, regard.attention(q, k, v))


def test_tensors_on_no_device_are_refused():
    q, k, v = tensors()
    for bad in (k.to("meta"), k.to_sparse()):
        with pytest.raises(regard.Error) as caught:
            regard.attention(q, bad, v)
        assert caught.value.field == "k"


def test_wide_indices_are_refused_with_a_remedy():
    q, k, v = (x[0] for x in tensors())
    with pytest.raises(regard.Error) as caught:
        regard.varlen_attention(q, k, v, torch.tensor([0, 20]), [0, 33])
    assert caught.value.field == "cu_seqlens_q"
    assert "int64" in str(caught.value) and "torch.int32" in caught.value.expected


def test_inside_inference_mode():
    with torch.inference_mode():
        q, k, v = tensors()
        out = regard.attention(q, k, v)
    assert oracle.error(out.numpy(), oracle.dense(q.numpy(), k.numpy(), v.numpy())[0]) < 2e-5


class FromBeforeTheTable(torch.Tensor):
    """A tensor as an older torch has it: __dlpack__, and no table of C functions."""

    __dlpack_c_exchange_api__ = None
    __module__ = "torch"


def test_older_torch_goes_through_dlpack():
    q, k, v = tensors(torch.bfloat16)
    want, want_lse = regard.attention(q, k, v, return_lse=True)
    old = [x.as_subclass(FromBeforeTheTable) for x in (q, k, v)]
    out, lse = regard.attention(*old, return_lse=True)
    assert type(out) is torch.Tensor and torch.equal(out, want) and torch.equal(lse, want_lse)
    for x in old:
        x.requires_grad_()
    assert torch.equal(regard.attention(*old), want)
