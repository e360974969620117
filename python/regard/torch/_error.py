"""Errors of the adapters: regard.Error with field, value and expected, like those of the library."""
from __future__ import annotations

from typing import Any

import regard


def error(field: str, value: Any, expected: str) -> Exception:
    """A `regard.Error`, to be raised by the caller."""
    return regard.Error(field, str(value), expected)
