"""The exceptions of regard. Every refusal names a field, the value it had, and what was expected."""

from __future__ import annotations

from regard import _core


class Error(ValueError):
    """Bad input, refused before anything was written.

    Attributes:
        field: the argument or the property that is wrong, for example "k" or "cu_seqlens_q[3]".
        value: what it was.
        expected: what is accepted instead.
    """

    field: str
    value: str
    expected: str

    def __init__(self, field: str, value: str, expected: str) -> None:
        parts = ([value] if value else []) + ([f"expected {expected}"] if expected else [])
        super().__init__(f"{field}: {'; '.join(parts)}")
        self.field = field
        self.value = value
        self.expected = expected

    def __reduce__(self) -> tuple[type[Error], tuple[str, str, str]]:
        return type(self), (self.field, self.value, self.expected)


class UsageError(Error, TypeError):
    """A call that does not fit the function: an unknown or missing argument, a value of the wrong type."""


_core.set_error_types(Error, UsageError)
