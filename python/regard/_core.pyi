"""The compiled part of regard, as type checkers see it. The package re-exports the calls; use it from there.

Shapes: B batch, Sq/Skv lengths, Hq/Hkv heads (Hq a multiple of Hkv), D head dim of q and k, Dv of v and out, 1 to 512.
Types: q f32, f16, bf16 or fp8; k and v the same, or fp8. Results come in the library of q.
Every call raises regard.Error (a ValueError with .field, .value, .expected) before anything is written, and its subclass
regard.UsageError (also a TypeError) for unknown or missing arguments and values of the wrong type.
"""

from contextvars import ContextVar
from typing import Any, Literal, Protocol, Sequence, TypedDict, TypeVar, overload

from typing_extensions import Unpack

from regard._gradients import Gradients

class Tensor(Protocol):
    """Any tensor that speaks DLPack: numpy.ndarray, torch.Tensor, jax.Array, cupy.ndarray."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> Any: ...

T = TypeVar("T", bound=Tensor)

Indices = Tensor | Sequence[int]
"""int32, one-dimensional and contiguous, or a list of whole numbers."""

class _MapOptions(TypedDict, total=False):
    scale: float | None
    """Factor of the scores; default 1/sqrt(D), with qv 1/sqrt(D + Dv)."""
    causal: bool
    """Query i sees keys up to its own position; the ends of both sequences are aligned."""
    window: tuple[int | None, int | None] | None
    """(left, right), inclusive distances from the query; None: open on that side."""
    chunk: int | None
    """Attention inside chunks of so many keys."""
    softcap: float
    """cap > 0: score = cap * tanh(score / cap)."""
    alibi_slopes: Tensor | None
    """f32 (Hq) or (B, Hq)."""
    bias: Tensor | None
    """f32, f16 or bf16 (B|1, Hq|1, Sq|1, Skv|1), added to the scores."""
    mask: Tensor | None
    """bool or uint8, the shapes of bias; nonzero: attend."""
    sink: Tensor | None
    """(Hq), f32 or q's type."""
    qv: Tensor | None
    """As q with Dv: a second query against the values."""
    leftpad: Indices | None
    """(B): keys to skip at the front of each sequence."""
    q_offset: Indices | None
    """(B): position of query 0 among the keys; default Skv - Sq."""
    seqused_q: Indices | None
    """(B): queries in use."""
    seqused_kv: Indices | None
    """(B): keys in use."""
    q_descale: Tensor | None
    k_descale: Tensor | None
    v_descale: Tensor | None
    dropout: float
    """Probability in [0, 1]."""
    seed: int
    offset: int

class _Options(_MapOptions, total=False):
    invariance: Literal["full", "batch", "none"]
    kernel: str | Sequence[str] | None
    """A kernel's name, a dotted prefix, or a list of them: only these may run, in this order."""
    max_seqlen_q: int | None
    """Bound for lengths that lie on a GPU, where no call reads them; default: what the tensors can hold."""
    max_seqlen_kv: int | None

class _Results(_Options, total=False):
    out_dtype: Any
    """Type of the result: "f32", "bf16", numpy.float32, torch.float16, ..."""

class _Tables(TypedDict, total=False):
    block_table: Tensor | None
    """int32 (B, max_pages)."""
    kv_indptr: Indices | None
    """int32 (B + 1): which of kv_indices belong to each sequence."""
    kv_indices: Indices | None
    """int32: pages."""
    kv_last_page_len: Indices | None
    """int32 (B): keys in the last page of each sequence."""
    kv_layout: Literal["NHD", "HND"]
    """Pages are (pages, page_size, Hkv, D), or (pages, Hkv, page_size, D)."""

class _Pages(_Results, _Tables, total=False):
    pass

class _VarlenOptions(_Pages, total=False):
    seqlens_kv: Indices | None
    """int32 (B): keys of each sequence, with block_table."""

class _CacheTables(TypedDict, total=False):
    cache_batch_idx: Indices | None
    """int32 (B): the row of the cache, or of the block table, that each query reads."""
    rotary_cos: Tensor | None
    """(positions, rotary_dim / 2), f32 or q's type."""
    rotary_sin: Tensor | None
    rotary: Literal["none", "interleaved", "half"]
    rotary_seqlens: Indices | None
    """int32 (B): first position of the rotation instead of cache_seqlens."""

class _CacheOptions(_Pages, _CacheTables, total=False):
    cu_seqlens_q: Indices | None
    cu_seqlens_new: Indices | None

class _CallOptions(_MapOptions, _Tables, _CacheTables, total=False):
    seqlens_kv: Indices | None
    """int32 (B): keys of each sequence, with block_table."""
    cache_seqlens: Indices | None
    """int32 (B): keys of each sequence, k and v being a cache."""

__version__: str

@overload
def attention(q: T, k: Tensor, v: Tensor, *, return_lse: Literal[False] = False, out: T | None = None,
              **options: Unpack[_Results]) -> T:
    """Exact attention over dense tensors: q (B, Sq, Hq, D), k (B, Skv, Hkv, D), v (B, Skv, Hkv, Dv).

    Returns out (B, Sq, Hq, Dv), and with return_lse lse (B, Hq, Sq), f32, natural logarithm. Raises regard.Error.
    """

@overload
def attention(q: T, k: Tensor, v: Tensor, *, return_lse: Literal[True], out: T | None = None,
              **options: Unpack[_Results]) -> tuple[T, T]: ...
@overload
def attention(q: T, k: Tensor, v: Tensor, *, return_lse: bool, out: T | None = None,
              **options: Unpack[_Results]) -> T | tuple[T, T]: ...

@overload
def varlen_attention(q: T, k: Tensor, v: Tensor, cu_seqlens_q: Indices, cu_seqlens_kv: Indices | None = None, *,
                     return_lse: Literal[False] = False, out: T | None = None,
                     **options: Unpack[_VarlenOptions]) -> T:
    """Exact attention over packed sequences, or packed queries over pages.

    q (Tq, Hq, D); k (Tkv, Hkv, D), v (Tkv, Hkv, Dv) with cu_seqlens_kv, or pages with block_table and seqlens_kv, or with
    kv_indptr, kv_indices and kv_last_page_len. cu_seqlens: int32 (B + 1), first 0, not decreasing.
    Returns out (Tq, Hq, Dv), and with return_lse lse (Hq, Tq). Raises regard.Error.
    """

@overload
def varlen_attention(q: T, k: Tensor, v: Tensor, cu_seqlens_q: Indices, cu_seqlens_kv: Indices | None = None, *,
                     return_lse: Literal[True], out: T | None = None,
                     **options: Unpack[_VarlenOptions]) -> tuple[T, T]: ...
@overload
def varlen_attention(q: T, k: Tensor, v: Tensor, cu_seqlens_q: Indices, cu_seqlens_kv: Indices | None = None, *,
                     return_lse: bool, out: T | None = None,
                     **options: Unpack[_VarlenOptions]) -> T | tuple[T, T]: ...

@overload
def with_kvcache(q: T, k_cache: Tensor, v_cache: Tensor, k_new: Tensor | None = None, v_new: Tensor | None = None, *,
                 cache_seqlens: Indices, return_lse: Literal[False] = False, out: T | None = None,
                 **options: Unpack[_CacheOptions]) -> T:
    """Attention over a KV cache, into which k_new and v_new are written first, in place.

    q (B, Sq, Hq, D); k_cache, v_cache (rows, capacity, Hkv, D|Dv) or pages; k_new (B, Snew, Hkv, D), v_new with Dv;
    cache_seqlens int32 (B): keys before the call, not changed.
    Returns out (B, Sq, Hq, Dv), and with return_lse lse (B, Hq, Sq). Raises regard.Error, the cache unchanged.
    """

@overload
def with_kvcache(q: T, k_cache: Tensor, v_cache: Tensor, k_new: Tensor | None = None, v_new: Tensor | None = None, *,
                 cache_seqlens: Indices, return_lse: Literal[True], out: T | None = None,
                 **options: Unpack[_CacheOptions]) -> tuple[T, T]: ...
@overload
def with_kvcache(q: T, k_cache: Tensor, v_cache: Tensor, k_new: Tensor | None = None, v_new: Tensor | None = None, *,
                 cache_seqlens: Indices, return_lse: bool, out: T | None = None,
                 **options: Unpack[_CacheOptions]) -> T | tuple[T, T]: ...

def attention_backward(dout: Tensor, q: T, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *,
                       dlse: Tensor | None = None, cu_seqlens_q: Indices | None = None,
                       cu_seqlens_kv: Indices | None = None, dq: T | None = None, dk: T | None = None,
                       dv: T | None = None, dbias: bool | Tensor = False, dsink: bool | Tensor = False,
                       grad_dtype: Any = None, **options: Unpack[_Options]) -> Gradients:
    """Gradients of attention, or with cu_seqlens of varlen_attention, for q, k, v, and on request bias and sink.

    The options are those of the forward call; out and lse what it returned; dout as out, in q's type or f32; dlse f32.
    dq, dk, dv in q's type, or f32 with grad_dtype="f32". Raises regard.Error.
    """

def merge_states(o_a: T, lse_a: Tensor, o_b: Tensor, lse_b: Tensor) -> tuple[T, T]:
    """Merges partial results over different keys: o (B, S, H, Dv) with lse (B, H, S), or (T, H, Dv) with (H, T).

    Returns (out, lse), out in o_a's type. Raises regard.Error.
    """

def attention_probabilities(q: T, k: Tensor, v: Tensor, cu_seqlens_q: Indices | None = None,
                            cu_seqlens_kv: Indices | None = None, **options: Unpack[_CallOptions]) -> T:
    """The softmax of a call before dropout: f32 (B, Hq, Sq, Skv), 0 for queries and keys that no sequence has.

    Tensors and options as for attention, varlen_attention or with_kvcache without new keys. Computed in f64 by the
    reference. Raises regard.Error, also for more than 256 MiB.
    """

def dropout_mask(q: T, k: Tensor, v: Tensor, cu_seqlens_q: Indices | None = None,
                 cu_seqlens_kv: Indices | None = None, **options: Unpack[_CallOptions]) -> T:
    """What dropout keeps in a call: bool (B, Hq, Sq, Skv), whatever causal or a mask hides; else as
    attention_probabilities.
    """

def attention_heads_first(q: T, k: Tensor, v: Tensor, *, return_lse: bool = False, out: T | None = None,
                          **options: Unpack[_Results]) -> Any:
    """attention for torch's order of dims: q, k, v, qv and out are (B, H, S, D). Everything else as attention."""

def explain(case: str, kernel: str | Sequence[str] | None, isa: str, device: str) -> tuple[str, str]: ...
def problem(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str]: ...
def kernels() -> list[tuple[str, str, str, bool, tuple[str, ...], tuple[str, ...]]]: ...
def check(cases: list[str], kernel: str, quick: bool, cross: bool) -> dict[str, Any]: ...
def bench(case: str, kernel: str, min_seconds: float, threads: int) -> dict[str, Any]: ...
def threads() -> int: ...
def gpus() -> list[tuple[str, tuple[int, int], int, str]]: ...
def check_device(device: Any) -> None: ...
def wait(device: int, stream: int) -> None: ...
def set_device_array_type(type: type[Any]) -> None: ...
def set_error_types(error: type[Exception], usage_error: type[Exception]) -> None: ...
def set_choice_variable(variable: ContextVar[Any]) -> None: ...
def set_gradients_type(type: type[Any]) -> None: ...
