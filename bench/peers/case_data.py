"""One case as a worker sees it: its sizes and options, and q, k, v in the memory that regard filled.

The file behind the descriptor holds q (B, Sq, Hq, D), k (B, Skv, Hkv, D), v (B, Skv, Hkv, Dv) in the case's type (for
a backward pass dout, shaped as out, too) and, to be filled here in f32, the results: out (B, Sq, Hq, Dv), or the
gradients of q, k and v; all dense, at the byte offsets that the case names.
"""
import ctypes
import mmap

import numpy as np

HUGE_PAGE = 2 << 20
NUMPY_TYPES = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}  # numpy has no bf16: its bits


class Cannot(Exception):
    """Why a peer does not run a case; one line."""


class Case:
    def __init__(self, fields, descriptor):
        self.dtype = fields["dtype"]
        self.batch, self.sq, self.skv = fields["b"], fields["sq"], fields["skv"]
        self.hq, self.hkv = fields["hq"], fields["hkv"]
        self.d, self.dv = fields["d"], fields["dv"]
        self.scale, self.softcap = fields["scale"], fields["softcap"]
        self.causal = fields["causal"]
        self.window_left, self.window_right = fields["window_left"], fields["window_right"]  # None: open
        self.group = self.hq // self.hkv
        self.map = mmap.mmap(descriptor, fields["bytes"])
        kind = NUMPY_TYPES[self.dtype]
        self.q = self._array(kind, (self.batch, self.sq, self.hq, self.d), fields["q"])
        self.k = self._array(kind, (self.batch, self.skv, self.hkv, self.d), fields["k"])
        self.v = self._array(kind, (self.batch, self.skv, self.hkv, self.dv), fields["v"])
        self.backward = fields["backward"]
        self.out_shape = (self.batch, self.sq, self.hq, self.dv)
        shapes = [array.shape for array in (self.q, self.k, self.v)] if self.backward else [self.out_shape]
        self.results = [self._array(np.float32, shape, at) for shape, at in zip(shapes, fields["results"], strict=True)]
        self.dout = None
        if self.backward:
            self.dout_dtype = fields["dout_dtype"]
            self.dout = self._array(NUMPY_TYPES[self.dout_dtype], self.out_shape, fields["dout"])

    def _array(self, kind, shape, offset):
        count = int(np.prod(shape))
        return np.frombuffer(self.map, kind, count, offset).reshape(shape)

    def is_decode(self):
        """Few queries over many keys: reading K and V is the work."""
        return self.sq * 16 <= self.skv

    def hides(self):
        """True where some query does not see every key; keys are aligned to the end of the queries."""
        first = self.skv - self.sq  # the position of query 0; the last one's is skv - 1
        right = 0 if self.causal else self.window_right
        left_hides = self.window_left is not None and self.skv - 1 > self.window_left
        return left_hides or (right is not None and first + right < self.skv - 1)

    def plain_causal(self):
        """Causal with as many queries as keys and no window: what libraries have a flag for."""
        return self.causal and self.sq == self.skv and self.window_left is None

    def visible(self):
        """(Sq, Skv) of bool: may query i see key j?"""
        position = np.arange(self.sq)[:, None] + self.skv - self.sq
        key = np.arange(self.skv)[None, :]
        seen = np.ones((self.sq, self.skv), bool)
        if self.causal:
            seen &= key <= position
        if self.window_left is not None:
            seen &= key >= position - self.window_left
        if self.window_right is not None:
            seen &= key <= position + self.window_right
        return seen


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def huge_array(shape, kind):
    """Uninitialised memory of a copy, on huge pages where the system gives them (regard's inputs lie on such too)."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if size > available_bytes() / 6:
        raise Cannot(f"a copy of {size >> 20} MiB would take more than a sixth of the free memory")
    memory = mmap.mmap(-1, size + HUGE_PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    skip = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % HUGE_PAGE
    return np.frombuffer(memory, kind, int(np.prod(shape)), skip).reshape(shape)


def huge_copy(array):
    """A dense copy of an array of any strides."""
    copy = huge_array(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


def heads_first(array):
    """(B, S, H, D) as a view (B, H, S, D)."""
    return array.transpose(0, 2, 1, 3)


def repeated_heads(array, group):
    """A dense copy (B, H * group, S, D) of (B, S, H, D): each head `group` times, where a library has no groups."""
    batch, length, heads, size = array.shape
    copy = huge_array((batch, heads, group, length, size), array.dtype)
    np.copyto(copy, heads_first(array)[:, :, None])
    return copy.reshape(batch, heads * group, length, size)


def fold_group(case, array):
    """q, or dout, as (B, group * Sq, Hkv, D): the query heads that share a key head become rows, so that K is read once."""
    rows = array.reshape(case.batch, case.sq, case.hkv, case.group, array.shape[3])
    return rows.transpose(0, 3, 1, 2, 4).reshape(case.batch, case.group * case.sq, case.hkv, array.shape[3])


def unfold_group(case, array):
    """The inverse of fold_group, of an output or a gradient of q."""
    rows = array.reshape(case.batch, case.group, case.sq, case.hkv, array.shape[3])
    return rows.transpose(0, 2, 3, 1, 4).reshape(case.batch, case.sq, case.hq, array.shape[3])
