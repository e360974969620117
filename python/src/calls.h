// The calls that compute: attention, varlen_attention, with_kvcache, merge_states.
#pragma once

#include <Python.h>

namespace regard::python {

// Adds the functions to the module. Returns 0, or -1 with a Python exception set.
int AddCalls(PyObject* module);

}  // namespace regard::python
