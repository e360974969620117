"""What attention_backward returns."""

from __future__ import annotations

from typing import Any, NamedTuple

from regard import _core


class Gradients(NamedTuple):
    """Gradients in the library of q; dbias and dsink are None where they were not asked for."""

    dq: Any
    dk: Any
    dv: Any
    dbias: Any = None
    dsink: Any = None


_core.set_gradients_type(Gradients)
