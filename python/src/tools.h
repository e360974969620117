// What the package knows beside the calls: explain, the kernel table, check and bench.
#pragma once

#include <nanobind/nanobind.h>

namespace regard::python {

void AddTools(nanobind::module_& module);  // tools.cc
void AddBench(nanobind::module_& module);  // bench.cc

}  // namespace regard::python
