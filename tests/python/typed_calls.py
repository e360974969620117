"""Read by type checkers in test_stubs.py, never run. A line that ends in `wrong` must be an error, no other may be."""

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

import regard

Array = npt.NDArray[np.float32]
q: Array = np.zeros((1, 2, 2, 8), np.float32)

assert_type(regard.attention(q, q, q, causal=True, window=(3, None)), Array)
assert_type(regard.attention(q, q, q, return_lse=True), tuple[Array, Array])
assert_type(regard.varlen_attention(q, q, q, [0, 2], [0, 2], kv_layout="HND"), Array)
assert_type(regard.with_kvcache(q, q, q, cache_seqlens=[1], rotary="half"), Array)
assert_type(regard.attention_probabilities(q, q, q, causal=True), Array)
assert_type(regard.dropout_mask(q, q, q, [0, 1], cache_seqlens=[1], seed=3), Array)
assert_type(regard.merge_states(q, q[..., 0], q, q[..., 0]), tuple[Array, Array])
assert_type(regard.attention_backward(q, q, q, q, q, q[..., 0], dbias=True), regard.Gradients)
assert_type(regard.explain("decode skv=64").rejected[0].reason, str)
assert_type(regard.explain(regard.attention, q, q, q).chosen, str)
assert_type(regard.list_kernels()[0].here, bool)
assert_type(regard.check("decode skv=64").ok, bool)
assert_type(regard.bench("decode skv=64").median_ms, float)
with regard.backends("cpu", exclude=["reference"]):
    try:
        regard.attention(q, q, q, kernel="cpu.avx2", invariance="batch")
    except regard.Error as error:
        assert_type(error.expected, str)

regard.attention(q, q, q, causl=True)  # wrong
regard.attention(3, q, q)  # wrong
regard.dropout_mask(q, q, q, kernel="reference")  # wrong
regard.attention(q, q)  # wrong
regard.attention(q, q, q, window=3)  # wrong
regard.with_kvcache(q, q, q)  # wrong
regard.attention(q, q, q, invariance="all")  # wrong
regard.explain("decode skv=64").chosn  # wrong
