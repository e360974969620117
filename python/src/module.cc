// The compiled module regard._core.
#include <nanobind/nanobind.h>

#include <exception>

#include "python/src/calls.h"
#include "python/src/object.h"
#include "python/src/tools.h"
#include "regard/version.h"
#include "src/core/executor_internal.h"

namespace nb = nanobind;

NB_MODULE(_core, m) {
  regard::internal::WatchForks();
  m.attr("__doc__") = "The compiled part of regard; use the package.";
  m.attr("__version__") = regard_version();
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const regard::Error&) {
      regard::python::RaiseCurrentException();
    }
  });
  if (regard::python::AddCalls(m.ptr()) != 0 || regard::python::AddBackwardCalls(m.ptr()) != 0) throw nb::python_error();
  regard::python::AddTools(m);
  regard::python::AddBench(m);
}
