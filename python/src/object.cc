// Exceptions across the border: regard::Error becomes regard.Error with its three fields.
#include "python/src/object.h"

#include <new>
#include <string_view>

namespace regard::python {
namespace {

PyObject* error_type = nullptr;        // never dropped: they live as long as the process
PyObject* usage_error_type = nullptr;

void Raise(PyObject* type, const Error& e) {
  PyErr_Clear();  // what led to this error is told by its words
  if (type == nullptr) {
    PyErr_SetString(PyExc_ValueError, e.what());
    return;
  }
  PyObject* error = PyObject_CallFunction(type, "sss", e.field().c_str(), e.value().c_str(), e.expected().c_str());
  if (error == nullptr) return;
  PyErr_SetObject(type, error);
  Py_DECREF(error);
}

}  // namespace

void SetErrorTypes(PyObject* error, PyObject* usage_error) {
  error_type = Py_NewRef(error);
  usage_error_type = Py_NewRef(usage_error);
}

void RaiseCurrentException() {
  try {
    throw;
  } catch (const PythonError&) {
    if (PyErr_Occurred() == nullptr) PyErr_SetString(PyExc_SystemError, "an error was lost");
  } catch (const UsageError& e) {
    Raise(usage_error_type, e);
  } catch (const Error& e) {
    Raise(error_type, e);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

std::string TypeName(PyObject* object) {
  const std::string_view name = Py_TYPE(object)->tp_name;
  if (name.find('.') != std::string_view::npos) return std::string(name);
  PyObject* module = PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(object)), "__module__");
  const char* text = module != nullptr && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : nullptr;
  std::string full = text != nullptr && std::string_view(text) != "builtins" ? std::string(text) + "." : "";
  Py_XDECREF(module);
  PyErr_Clear();
  return full + std::string(name);
}

}  // namespace regard::python
