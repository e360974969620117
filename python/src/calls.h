// The calls that compute: attention, varlen_attention, with_kvcache, merge_states, the maps; attention_backward.
#pragma once

#include <Python.h>

#include <optional>
#include <string_view>

#include "regard/problem.h"
#include "regard/tensor.h"

namespace regard::python {

// Add the functions to the module. Return 0, or -1 with a Python exception set.
int AddCalls(PyObject* module);         // calls.cc
int AddBackwardCalls(PyObject* module);  // backward_call.cc

// The problem that such a call would compute, and where; nothing if `name` is no call of this file. Throws what the call
// throws for its arguments.
struct CallProblem {
  Problem problem;
  Device device;
};
std::optional<CallProblem> ProblemOfCall(std::string_view name, PyObject* const* args, Py_ssize_t count,
                                         PyObject* keywords);
std::optional<CallProblem> ProblemOfBackwardCall(std::string_view name, PyObject* const* args, Py_ssize_t count,
                                                 PyObject* keywords);

// A vectorcall function as the method tables want it.
template <class Function>
PyMethodDef Fast(const char* name, Function* function, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL | METH_KEYWORDS, doc};
}

}  // namespace regard::python
