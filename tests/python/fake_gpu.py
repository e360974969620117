"""Arrays on a GPU that is none: memory of the driver that REGARD_LIBCUDA names, seen through DLPack.

GpuArray speaks `__dlpack__`; TableArray publishes a table of C functions, as torch's tensors do: it allocates results, and
tells its current stream.
"""

import ctypes
import os

import numpy as np

CUDA = 2
CODES = {np.dtype(np.float32): (2, 32), np.dtype(np.float16): (2, 16), np.dtype(np.int32): (0, 32),
         np.dtype(np.int64): (0, 64), np.dtype(np.uint8): (1, 8), np.dtype(bool): (6, 8)}
DTYPES = {code: dtype for dtype, code in CODES.items()}


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class DType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", Device), ("ndim", ctypes.c_int32), ("dtype", DType),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class ManagedVersioned(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
                ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", Tensor)]


capsule_new = ctypes.pythonapi.PyCapsule_New
capsule_new.restype = ctypes.py_object
capsule_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype = ctypes.c_void_p
capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class Driver:
    """The driver's own entry points, called as another library would."""

    def __init__(self):
        self.lib = ctypes.CDLL(os.environ["REGARD_LIBCUDA"])
        context = ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self("cuCtxPushCurrent_v2", context)
        self.lib.regard_fake_last_stream.restype = ctypes.c_void_p

    def __call__(self, name, *args):
        result = getattr(self.lib, name)(*args)
        assert result == 0, f"{name}: error {result}"

    def allocate(self, size):
        address = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return address.value

    def last_stream(self):
        """The stream of the last launch, a number; 0 is the default stream."""
        return self.lib.regard_fake_last_stream() or 0

    def new_stream(self):
        stream = ctypes.c_void_p()
        self("cuStreamCreate", ctypes.byref(stream), 0)
        return stream.value


driver = None  # set by the first array


def the_driver():
    global driver
    driver = driver or Driver()
    return driver


class GpuArray:
    """A dense array in device memory; `asked` keeps the keyword arguments of each `__dlpack__`."""

    def __init__(self, array=None, *, shape=None, dtype=None):
        self.dtype = np.dtype(dtype if array is None else array.dtype)
        self.shape = tuple(shape if array is None else array.shape)
        self.size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        self.address = the_driver().allocate(self.size)
        self.asked = []
        self._shape = (ctypes.c_int64 * max(len(self.shape), 1))(*self.shape)
        if array is not None and self.size:
            host = np.ascontiguousarray(array)
            driver("cuMemcpyHtoD_v2", ctypes.c_uint64(self.address), ctypes.c_void_p(host.ctypes.data),
                   ctypes.c_size_t(self.size))

    def tensor(self):
        code, bits = CODES[self.dtype]
        return Tensor(self.address, Device(CUDA, 0), len(self.shape), DType(code, bits, 1), self._shape, None, 0)

    def __dlpack_device__(self):
        return CUDA, 0

    def __dlpack__(self, **options):
        self.asked.append(options)
        self._managed = Managed(self.tensor(), None, None)
        return capsule_new(ctypes.addressof(self._managed), b"dltensor", None)

    def numpy(self):
        return read(self.tensor())


def read(tensor):
    """A Tensor of device memory as a NumPy array."""
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    host = np.empty(shape, DTYPES[tensor.dtype.code, tensor.dtype.bits])
    if host.size:
        the_driver()("cuMemcpyDtoH_v2", ctypes.c_void_p(host.ctypes.data), ctypes.c_uint64(tensor.data),
                     ctypes.c_size_t(host.nbytes))
    return host


def fetch(result, stream=1):
    """What regard returned for a GpuArray, as a NumPy array."""
    assert result.__dlpack_device__() == (CUDA, 0)
    capsule = result.__dlpack__(stream=stream)
    return read(ctypes.cast(capsule_pointer(capsule, b"dltensor"), ctypes.POINTER(Managed)).contents.tensor)


# The table of C functions of DLPack 1.2 and newer.
ALLOCATE = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.POINTER(Tensor), ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p,
                             ctypes.c_void_p)
MANAGED_FROM = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p))
OBJECT_FROM = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
TENSOR_FROM = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))
STREAM = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))


class Table(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("previous", ctypes.c_void_p),
                ("allocate", ALLOCATE), ("managed_from_object", MANAGED_FROM), ("object_from_managed", OBJECT_FROM),
                ("tensor_from_object", TENSOR_FROM), ("current_stream", STREAM)]


class TableArray(GpuArray):
    """`made` are the results and the scratch memory that calls asked for; `stream` is the library's current one."""

    made = []
    stream = 0
    _pending = {}


def _allocate(prototype, out, _context, _set_error):
    wanted = prototype.contents
    assert (wanted.device.type, wanted.device.id) == (CUDA, 0)
    array = TableArray(shape=[wanted.shape[i] for i in range(wanted.ndim)],
                       dtype=DTYPES[wanted.dtype.code, wanted.dtype.bits])
    TableArray.made.append(array)
    array._versioned = ManagedVersioned(1, 0, None, None, 0, array.tensor())
    out[0] = ctypes.addressof(array._versioned)
    TableArray._pending[ctypes.addressof(array._versioned)] = array
    return 0


def _object_from_managed(managed, out):
    array = TableArray._pending.pop(managed)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(array))
    out[0] = id(array)
    return 0


def _tensor_from_object(array, out):
    out[0] = array.tensor()
    return 0


def _current_stream(kind, index, out):
    assert (kind, index) == (CUDA, 0)
    out[0] = TableArray.stream
    return 0


TABLE = Table(1, 3, None, ALLOCATE(_allocate), MANAGED_FROM(), OBJECT_FROM(_object_from_managed),
              TENSOR_FROM(_tensor_from_object), STREAM(_current_stream))
TABLE_NAME = b"dlpack_exchange_api"  # a capsule keeps the address of its name alone
TableArray.__dlpack_c_exchange_api__ = capsule_new(ctypes.addressof(TABLE), TABLE_NAME, None)
