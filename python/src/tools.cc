// explain, list_kernels, check: results as JSON text and plain values, which the package wraps.
#include "python/src/tools.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/src/arguments.h"
#include "python/src/calls.h"
#include "python/src/threads.h"
#include "regard/device.h"
#include "regard/plan.h"
#include "regard/status.h"
#include "src/backend/device_of.h"
#include "src/backend/kernel_info.h"
#include "src/backend/probe_devices.h"
#include "src/backend/select.h"
#include "src/cases/check.h"
#include "src/cases/grid.h"
#include "src/core/suggest.h"
#include "src/cuda/driver/memory.h"

namespace nb = nanobind;

namespace regard::python {
namespace {

constexpr Isa kIsas[] = {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

// "cpu" (or nothing), "cuda", "cuda:1", or a GPU by its product name, pretended.
DeviceCaps DeviceNamed(const std::string& name) { return DeviceByName("device", name.empty() ? "cpu" : name); }

// A device, or this CPU as one whose best instruction set is `isa`.
DeviceCaps CapsFor(const std::string& isa, const std::string& device) {
  DeviceCaps caps = DeviceNamed(device);
  if (isa.empty()) return caps;
  if (caps.gpu) throw Error("isa", isa, "none where device is a GPU");
  std::string known;
  for (const Isa best : kIsas) {
    known += (known.empty() ? "" : ", ") + std::string(Name(best));
    if (isa != Name(best)) continue;
    caps.isas.clear();
    for (const Isa below : kIsas) {
      const bool arm = below == Isa::kNeon;
      if (below <= best && (below == Isa::kScalar || arm == (best == Isa::kNeon))) caps.isas.push_back(below);
    }
    return caps;
  }
  throw Error("isa", isa, "one of " + known);
}

// (text, JSON) of the choice for a problem.
nb::tuple Explain(const std::string& text, nb::handle kernel, const std::string& isa, const std::string& device) {
  const Problem p = ParseProblem(text);
  Validate(p);
  const DeviceCaps caps = CapsFor(isa, device);
  const std::optional<KernelChoice> choice = ChoiceOf(kernel.is_none() ? nullptr : kernel.ptr());
  const Selection selection = choice ? Select(p, caps, *choice) : Select(p, caps);
  const Plan plan(p, selection, &CallerExecutor());
  const std::string words = ExplainText(p, caps, &plan, selection), json = ExplainJson(p, caps, &plan, selection);
  return nb::make_tuple(words, json);
}

// (problem text, device) of the call `name`(*positional, **named). Nothing runs.
nb::object ProblemText(const std::string& name, nb::tuple positional, nb::dict named) {
  std::vector<PyObject*> values;
  for (const nb::handle value : positional) values.push_back(value.ptr());
  nb::list names;
  for (const auto& [key, value] : named) {
    names.append(key);
    values.push_back(value.ptr());
  }
  const nb::tuple keywords(names);
  PyObject* text = Guarded([&]() -> PyObject* {
    const auto count = static_cast<Py_ssize_t>(positional.size());
    std::optional<CallProblem> p = ProblemOfCall(name, values.data(), count, keywords.ptr());
    if (!p) p = ProblemOfBackwardCall(name, values.data(), count, keywords.ptr());
    if (!p) throw UsageError("case", name, "a problem's text, a call of regard with its arguments, or tensors");
    const std::string device = p->device.type == DeviceType::kCpu ? "cpu" : NameOf(p->device);
    return Py_BuildValue("(ss)", Print(p->problem).c_str(), device.c_str());
  });
  if (text == nullptr) throw nb::python_error();
  return nb::steal(text);
}

// (name, numerics, summary, problems of the kinds asked for that it can do here) of every kernel.
nb::list Kernels() {
  nb::list rows;
  const std::vector<DeviceCaps> everything = ProbeDevices(), devices = DevicesHere();
  const auto accepts = [](const KernelInfo& kernel, const Problem& p, const std::vector<DeviceCaps>& some) {
    return std::any_of(some.begin(), some.end(), [&](const DeviceCaps& caps) { return kernel.supports(kernel, p, caps).accepted; });
  };
  for (const KernelInfo* kernel : AllKernels()) {
    std::vector<std::string> phases, dtypes;
    bool here = false;
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2}) {
      bool any = false;
      for (const char* phase : {"prefill", "decode", "mixed", "backward"}) {
        const bool mixed = std::string_view(phase) == "mixed";
        const Problem p = ParseProblem(std::string(phase) + " b=2 sq=" + (phase[0] == 'd' ? "1" : "64") +
                                       " skv=64 hq=4 hkv=2 d=64 dtype=" + std::string(Name(dtype)) +
                                       (mixed ? " varlen" : ""));
        try {
          Validate(p);
        } catch (const Error&) {
          continue;
        }
        if (!accepts(*kernel, p, everything)) continue;
        any = true;
        here = here || accepts(*kernel, p, devices);
        if (std::find(phases.begin(), phases.end(), phase) == phases.end()) phases.push_back(phase);
      }
      if (any) dtypes.push_back(std::string(Name(dtype)));
    }
    rows.append(nb::make_tuple(kernel->name, kernel->numerics, kernel->summary, here,
                              nb::tuple(nb::cast(phases)), nb::tuple(nb::cast(dtypes))));
  }
  return rows;
}

// (name, compute capability, bytes of memory, why its kernels cannot be compiled) of every GPU.
nb::list Gpus() {
  nb::list gpus;
  for (int index = 0; index < DeviceCaps::GpuCount(); ++index) {
    const DeviceCaps& caps = DeviceCaps::Gpu(index);
    const GpuCaps& gpu = *caps.gpu;
    gpus.append(nb::make_tuple(caps.name, nb::make_tuple(gpu.sm / 10, gpu.sm % 10), gpu.memory_bytes, gpu.missing));
  }
  return gpus;
}

// Waits for the default stream of a GPU by its index, or for the current stream of a tensor on it; throws what kernels found.
void CheckGpu(nb::handle object) {
  Place place;
  Holder holder;
  if (nb::isinstance<nb::int_>(object)) {
    place.device = {DeviceType::kCuda, static_cast<int>(IntOf(object.ptr(), "device"))};
    static_cast<void>(DeviceCaps::Gpu(place.device.index));
  } else {
    ViewOf(object.ptr(), "tensor", Access::kRead, holder);
    place = holder.place();
  }
  const nb::gil_scoped_release release;
  CheckDevice(place.device, place.stream);
}

// Waits for a stream of a GPU.
void WaitFor(int device, std::uintptr_t stream) {
  const nb::gil_scoped_release release;
  cuda::Synchronize(device, reinterpret_cast<cuda::Stream>(stream));
}

std::vector<const KernelInfo*> KernelsMatching(const std::string& pattern) {
  std::vector<const KernelInfo*> matching;
  std::vector<std::string_view> names;
  for (const KernelInfo* kernel : AllKernels()) {
    names.push_back(kernel->name);
    if (pattern.empty() || MatchesPattern(pattern, kernel->name)) matching.push_back(kernel);
  }
  if (!matching.empty()) return matching;
  const std::string nearest = Nearest(pattern, names);
  throw Error("kernel", pattern,
              "a kernel's name or a dotted prefix of one" + (nearest.empty() ? "" : "; the nearest is " + nearest));
}

// Asked between runs, with the GIL: Ctrl-C stops the check.
bool Interrupted() {
  const nb::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

nb::dict Check(const std::vector<std::string>& texts, const std::string& kernel, bool quick, bool cross) {
  std::vector<Problem> problems;
  if (texts.empty()) problems = cases::Grid(quick ? cases::GridSize::kQuick : cases::GridSize::kAll);
  for (const std::string& text : texts) {
    problems.push_back(ParseProblem(text));
    Validate(problems.back());
  }
  const std::vector<const KernelInfo*> kernels = KernelsMatching(kernel);
  cases::CheckOptions options;
  options.cross = cross;
  options.reference_too = !kernel.empty();
  options.executor = &CallerExecutor();
  options.interrupted = Interrupted;
  cases::CheckReport report;
  {
    const nb::gil_scoped_release release;
    report = cases::RunCheck(problems, kernels, options);
  }
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  nb::list scores, misses;
  for (const cases::KernelScore& s : report.kernels) {
    scores.append(nb::make_tuple(s.kernel, s.cases, s.misses, s.worst_ratio, s.out_error, s.worst_case));
  }
  for (const cases::Miss& m : report.misses) misses.append(nb::make_tuple(m.problem, m.kernel, m.what));
  nb::dict result;
  result["cases"] = report.cases;
  result["runs"] = report.runs;
  result["unable"] = report.unable;
  result["scores"] = scores;
  result["misses"] = misses;
  return result;
}

}  // namespace

void AddTools(nb::module_& m) {
  m.def("explain", &Explain, nb::arg("case"), nb::arg("kernel").none(), nb::arg("isa"), nb::arg("device"));
  m.def("problem", &ProblemText, nb::arg("name"), nb::arg("args"), nb::arg("kwargs"));
  m.def("kernels", &Kernels);
  m.def("check", &Check, nb::arg("cases"), nb::arg("kernel"), nb::arg("quick"), nb::arg("cross"));
  m.def("gpus", &Gpus);
  m.def("check_device", &CheckGpu, nb::arg("device"));
  m.def("wait", &WaitFor, nb::arg("device"), nb::arg("stream"));
  m.def("set_device_array_type", [](nb::handle type) { SetDeviceArrayType(type.ptr()); });
  m.def("threads", [] { return CallerExecutor().threads(); });
  m.def("set_error_types", [](nb::handle error, nb::handle usage) { SetErrorTypes(error.ptr(), usage.ptr()); });
  m.def("set_choice_variable", [](nb::handle variable) { SetChoiceVariable(variable.ptr()); });
}

}  // namespace regard::python
