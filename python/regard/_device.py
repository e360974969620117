"""GPUs of this machine, what their kernels found wrong, and results in GPU memory that regard took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regard import _core

_DEFAULT_STREAMS = (None, 1)  # None and 1 are the legacy default stream of __dlpack__
_NO_ORDER = -1


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        name: of the product, as the driver says it.
        compute_capability: (8, 0) is sm_80.
        memory_bytes: all of it.
        missing: why no kernel can be compiled for it here; empty: they can.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    missing: str


def gpus() -> list[Gpu]:
    """The GPUs of this machine, by the driver's index; none without a driver."""
    return [Gpu(*row) for row in _core.gpus()]


def check_device(device: Any = 0) -> None:
    """Waits for a GPU, then raises regard.Error if a kernel there has met a bad length or table entry since the last one.

    Calls themselves never wait: what is wrong in lengths and tables on a GPU is raised by a later call on it, or here.

    Args:
        device: the driver's index, whose default stream is waited for; or a tensor, for the current stream of its library.
    """
    _core.check_device(device)


class DeviceArray:
    """A result on a GPU for a library without a DLPack table of its own: exports DLPack, and nothing else.

    A consumer that works on another stream than the call's gets it when it is done.
    """

    def __init__(self, array: Any, device: int, stream: int) -> None:
        self._array, self._device, self._stream = array, device, stream

    def __dlpack__(self, *, stream: int | None = None, max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> Any:
        same = stream == self._stream or (stream in _DEFAULT_STREAMS and not self._stream)
        if stream != _NO_ORDER and not same:
            _core.wait(self._device, self._stream)
        return self._array.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


_core.set_device_array_type(DeviceArray)
