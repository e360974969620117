"""torch's names for attention backends as classes of regard's kernels, and a context that orders and restricts them.

| SDPBackend | regard's kernels |
|---|---|
| FLASH_ATTENTION | those of a vector instruction set or of tensor cores: cpu.avx512_bf16, cpu.avx2, cuda.sm80, ... |
| EFFICIENT_ATTENTION | cpu.scalar and cuda.generic: the same on plain arithmetic |
| CUDNN_ATTENTION | cuda: all kernels for NVIDIA GPUs |
| MATH | reference: plain f64 loops |
| OVERRIDEABLE | every kernel, in regard's order |
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch.nn.attention import SDPBackend

import regard

from ._error import error

Backend = SDPBackend | str

_PLAIN = ("cpu.scalar", "cuda.generic")
_PREFIXES = {SDPBackend.EFFICIENT_ATTENTION: _PLAIN, SDPBackend.CUDNN_ATTENTION: ("cuda",),
             SDPBackend.MATH: ("reference",)}
_ORDER = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)

# The kernel patterns that hold now, joined by commas; None: regard's own choice. Process-wide, as torch's flags are.
current: str | None = None


def patterns_of(backend: Backend) -> tuple[str, ...]:
    """The kernel patterns of a torch backend, best first; a str is a pattern of regard's already."""
    if isinstance(backend, str):
        return (backend,)
    if backend == SDPBackend.FLASH_ATTENTION:
        return _fast_kernels()
    if backend == SDPBackend.OVERRIDEABLE:
        return tuple(dict.fromkeys(name.split(".")[0] for name in kernel_names()))
    if backend in _PREFIXES:
        return _PREFIXES[backend]
    raise error("backends", name_of(backend), "SDPBackend members FLASH_ATTENTION, EFFICIENT_ATTENTION, "
                "CUDNN_ATTENTION, MATH or OVERRIDEABLE, or names of regard's kernels such as \"cpu.avx2\"")


def kernel_names() -> list[str]:
    """Every kernel of this build, best first."""
    return [kernel.name for kernel in regard.list_kernels()]


def _fast_kernels() -> tuple[str, ...]:
    names = [name for name in kernel_names() if name.startswith(("cpu.", "cuda."))]
    prefixes = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    return tuple(prefix for prefix in prefixes if prefix not in _PLAIN)


def name_of(backend: Backend) -> str:
    """FLASH_ATTENTION for SDPBackend.FLASH_ATTENTION."""
    return backend if isinstance(backend, str) else str(backend.name)


def _kernel_patterns(backends: Sequence[Backend], set_priority: bool) -> str:
    ordered = list(backends) if set_priority else [b for b in _ORDER if b in backends]
    ordered += [b for b in backends if b not in ordered]
    return ",".join(dict.fromkeys(p for backend in ordered for p in patterns_of(backend)))


@contextlib.contextmanager
def sdpa_kernel(backends: Iterable[Backend] | Backend, set_priority: bool = False) -> Iterator[None]:
    """Within the context, regard.torch computes only with these backends.

    `backends`: SDPBackend members, or names and dotted prefixes of regard's kernels, one or a list. Without
    `set_priority` regard keeps its own order among them (fastest class first); with it, the order given is tried first
    to last. A call that none of them can do raises regard.Error, which lists every skipped backend with its reason.
    Holds for the process, like torch.nn.attention.sdpa_kernel, which it leaves alone.
    """
    global current
    given = [backends] if isinstance(backends, (SDPBackend, str)) else list(backends)
    if not given:
        raise error("backends", "[]", "at least one backend")
    outer = current
    current = _kernel_patterns(given, set_priority)
    try:
        yield
    finally:
        current = outer


def no_backend(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Exception:
    """The error of a call that none of its kernels can do: each skipped backend, with its kernels' reasons."""
    patterns = kwargs["kernel"]
    explanation = regard.explain(function, *args, **{**kwargs, "kernel": None})
    reasons = {r.kernel: r.reason for r in explanation.rejected}
    lines = "".join(f"\n  skipped {_skipped(pattern, reasons)}" for pattern in patterns)
    return error("kernel", ", ".join(patterns), f"a backend that can do {explanation.problem}{lines}")


def _skipped(pattern: str, reasons: dict[str, str]) -> str:
    label = next((f"{name_of(b)} ({pattern})" for b in _ORDER if pattern in patterns_of(b)), pattern)
    mine = {name: reason for name, reason in reasons.items() if name == pattern or name.startswith(pattern + ".")}
    if not mine:
        return f"{label}: this build of regard has no such kernel"
    by_reason: dict[str, list[str]] = {}
    for name, reason in mine.items():
        by_reason.setdefault(reason, []).append(name)
    return f"{label}: " + "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
