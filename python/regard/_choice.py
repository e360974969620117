"""Which kernels may run, for a stretch of code."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Iterator, Sequence

from regard import _core
from regard._errors import UsageError

_choice: ContextVar[tuple[tuple[str, ...], tuple[str, ...]] | None] = ContextVar("regard.backends", default=None)
_core.set_choice_variable(_choice)


@contextmanager
def backends(*priority: str, exclude: str | Sequence[str] = ()) -> Iterator[None]:
    """Chooses kernels for every call inside the `with` block that gives no `kernel=` of its own.

    Args:
        priority: kernel names or dotted prefixes ("cpu.avx2", "reference"); only kernels that match one of them may
            run, tried in this order. None given: all may run.
        exclude: names or prefixes of kernels that may not run.

    Blocks nest, and the inner one wins. The choice belongs to the current thread or asyncio task. A call that no allowed
    kernel can do raises regard.Error with every kernel's reason.
    """
    excluded = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    for word in (*priority, *excluded):
        if not isinstance(word, str):
            raise UsageError("backends", type(word).__name__, "names of kernels, or dotted prefixes of them")
    token = _choice.set((priority, excluded))
    try:
        yield
    finally:
        _choice.reset(token)
