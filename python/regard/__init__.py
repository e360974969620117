"""Exact attention for LLM inference and training, on tensors of any library.

    >>> import numpy as np, regard
    >>> q = np.ones((1, 4, 8, 64), np.float32)
    >>> k = v = np.ones((1, 4, 2, 64), np.float32)
    >>> regard.attention(q, k, v, causal=True).shape
    (1, 4, 8, 64)

Shapes are (batch, tokens, heads, head dim); every tensor that speaks DLPack or the buffer protocol is read in place.
docs/semantics.md of the project defines every option.
"""

from regard._errors import Error, UsageError
from regard._core import (
    __version__,
    attention,
    attention_backward,
    attention_probabilities,
    dropout_mask,
    merge_states,
    varlen_attention,
    with_kvcache,
)
from regard._gradients import Gradients
from regard._choice import backends
from regard._device import Gpu, check_device, gpus
from regard._tools import (
    BenchResult,
    CheckReport,
    Explanation,
    Kernel,
    KernelScore,
    Miss,
    Rejection,
    bench,
    check,
    explain,
    list_kernels,
    num_threads,
)

__all__ = [
    "BenchResult",
    "CheckReport",
    "Error",
    "Explanation",
    "Gpu",
    "Gradients",
    "Kernel",
    "KernelScore",
    "Miss",
    "Rejection",
    "UsageError",
    "__version__",
    "attention",
    "attention_backward",
    "attention_probabilities",
    "backends",
    "bench",
    "check",
    "check_device",
    "dropout_mask",
    "explain",
    "gpus",
    "list_kernels",
    "merge_states",
    "num_threads",
    "varlen_attention",
    "with_kvcache",
]
