// Owned references to Python objects, and regard::Error on its way to Python.
#pragma once

#include <Python.h>

#include <string>
#include <utility>

#include "regard/status.h"

namespace regard::python {

// Thrown where a Python exception is already set.
struct PythonError {};

// A call that does not fit the function: an unknown keyword, a value of the wrong type. Python: regard.UsageError.
class UsageError : public Error {
 public:
  using Error::Error;
};

// A strong reference, or nothing. The GIL is held wherever one is made, copied or dropped.
class Object {
 public:
  Object() = default;
  static Object Steal(PyObject* object) {  // throws PythonError for null
    if (object == nullptr) throw PythonError();
    return Object(object);
  }
  static Object Share(PyObject* object) { return Object(Py_NewRef(object)); }
  Object(Object&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Object& operator=(Object&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Object() { Py_XDECREF(object_); }
  PyObject* get() const { return object_; }
  PyObject* Release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  explicit Object(PyObject* object) : object_(object) {}
  PyObject* object_ = nullptr;
};

// Names the classes regard.Error and regard.UsageError, which the package defines.
void SetErrorTypes(PyObject* error, PyObject* usage_error);

// Runs body() -> PyObject*, and turns whatever it throws into a Python exception and null.
void RaiseCurrentException();
template <class Body>
PyObject* Guarded(Body&& body) {
  try {
    return body();
  } catch (...) {
    RaiseCurrentException();
    return nullptr;
  }
}

// "numpy.ndarray", "int": the type of an object, for messages.
std::string TypeName(PyObject* object);

}  // namespace regard::python
