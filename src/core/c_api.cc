// The C API over the C++ one. Invariant: no exception leaves an extern "C" function; each failure is kept, as text and
// in parts, for the calling thread.

#include "regard/c_api.h"

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/backend/device_of.h"
#include "src/backend/kernel_info.h"
#include "src/core/c_api_convert.h"

// The opaque handles.
struct regard_selection {
  regard::Problem problem;
  regard::Selection selection;
};
struct regard_plan {
  std::unique_ptr<regard::Executor> executor;  // null: the default one; outlives `plan`
  regard::Plan plan;
};

namespace {

using regard::Error;

struct LastError {
  std::string text, field, value, expected;
};

LastError& Last() {
  thread_local LastError last;
  return last;
}

regard_status Fail(regard_status status, const char* text, const std::string& field = "", const std::string& value = "",
                   const std::string& expected = "") noexcept {
  LastError& last = Last();
  try {
    last = {text, field, value, expected};
  } catch (const std::bad_alloc&) {
    // No room even for the message: the status alone tells.
    last.text.clear();
    last.field.clear();
    last.value.clear();
    last.expected.clear();
  }
  return status;
}

// Runs body() and turns what it throws into a status.
template <class Body>
regard_status Guarded(Body&& body) noexcept {
  try {
    body();
    return REGARD_OK;
  } catch (const Error& e) {
    return Fail(REGARD_INVALID_ARGUMENT, e.what(), e.field(), e.value(), e.expected());
  } catch (const std::bad_alloc&) {
    return Fail(REGARD_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return Fail(REGARD_INTERNAL, e.what());
  } catch (...) {
    return Fail(REGARD_INTERNAL, "an exception of unknown type");
  }
}

template <class T>
void Require(const T* pointer, const char* field, const char* expected) {
  if (pointer == nullptr) throw Error(field, "null", expected);
}

// Text out: as the header's head describes. make() gives the text.
template <class Make>
regard_status WriteText(Make&& make, char* buffer, std::size_t buffer_bytes, std::size_t* needed) noexcept {
  bool fits = true;
  std::size_t bytes = 0;
  const regard_status status = Guarded([&] {
    const std::string text = make();
    bytes = text.size() + 1;
    if (needed != nullptr) *needed = bytes;
    fits = buffer == nullptr || bytes <= buffer_bytes;
    if (buffer != nullptr && fits) std::memcpy(buffer, text.c_str(), bytes);
  });
  if (status != REGARD_OK || fits) return status;
  const regard_status refused = Guarded([&] {
    throw Error("buffer_bytes", std::to_string(buffer_bytes), "at least " + std::to_string(bytes));
  });
  return refused == REGARD_INVALID_ARGUMENT ? REGARD_BUFFER_TOO_SMALL : refused;
}

using Call = regard::AttentionResult (*)(regard::AttentionArgs, const regard::AttentionOptions&, bool,
                                         const regard::CallControl&);

regard::CallControl ControlOf(const regard_args* args, const regard_options* options) {
  regard::CallControl control;
  control.stream = regard::c_api::ToStream(args);
  regard::KernelChoice choice = regard::c_api::ToChoice(options);
  if (choice != regard::KernelChoice{}) control.choice = std::move(choice);
  return control;
}

regard_status Run(Call call, const regard_args* c_args, const regard_options* c_options,
                  regard_selection** selection) noexcept {
  return Guarded([&] {
    if (selection != nullptr) *selection = nullptr;
    const regard::AttentionArgs args = regard::c_api::ToArgs(c_args);
    const regard::AttentionOptions options = regard::c_api::ToOptions(c_options);
    const regard::CallControl control = ControlOf(c_args, c_options);
    // What the caller gets is made ready first, so that nothing fails once results are written.
    auto handle = selection == nullptr ? nullptr : std::make_unique<regard_selection>();
    if (handle != nullptr) handle->problem = regard::ProblemOf(args, options);
    regard::AttentionResult result = call(args, options, args.lse.has_value(), control);
    if (handle == nullptr) return;
    handle->selection = std::move(result.selection);
    *selection = handle.release();
  });
}

// A map of a call into the caller's tensor, which is looked at before anything is computed.
regard_status WriteMap(regard::OwnedTensor (*make)(const regard::AttentionArgs&, const regard::AttentionOptions&),
                       regard::DType dtype, const regard_args* c_args, const regard_options* c_options,
                       const regard_tensor* c_map) noexcept {
  return Guarded([&] {
    regard::AttentionArgs args = regard::c_api::ToArgs(c_args, false);
    const regard::AttentionOptions options = regard::c_api::ToOptions(c_options);
    const regard::TensorView map = regard::c_api::ToView(c_map, "map");
    args.lse.reset();
    const regard::Problem p = regard::ProblemOf(args, options);
    const regard::TensorView expected =
        regard::TensorView::Contiguous(map.data, dtype, {p.batch, p.heads_q, p.seq_q, p.seq_kv});
    bool fits = map.rank == 4 && map.dtype == dtype && map.device == expected.device;
    std::int64_t stride = 1;
    for (std::size_t d = 4; fits && d-- > 0;) {
      fits = map.shape[d] == expected.shape[d] && (map.shape[d] <= 1 || map.stride[d] == stride);
      stride *= map.shape[d];
    }
    if (!fits) throw Error("map", map.Describe(), "row-major " + expected.Describe());
    if (map.data == nullptr && map.Elements() > 0) throw Error("map.data", "null", "memory for the result");
    const regard::OwnedTensor made = make(args, options);
    const auto bytes = static_cast<std::size_t>(map.Elements()) * regard::SizeOf(dtype);
    if (bytes > 0) std::memcpy(map.data, made.view().data, bytes);
  });
}

}  // namespace

extern "C" {

const char* regard_last_error(void) { return Last().text.c_str(); }
const char* regard_last_error_field(void) { return Last().field.c_str(); }
const char* regard_last_error_value(void) { return Last().value.c_str(); }
const char* regard_last_error_expected(void) { return Last().expected.c_str(); }

regard_status regard_tensor_contiguous(void* data, regard_dtype dtype, int32_t rank, const int64_t* shape,
                                       regard_tensor* tensor) {
  return Guarded([&] {
    Require(tensor, "tensor", "a regard_tensor to fill");
    regard_tensor t{};
    t.data = data;
    t.dtype = static_cast<int32_t>(dtype);
    t.rank = rank;
    if (rank > 0 && rank <= REGARD_MAX_RANK) {
      Require(shape, "shape", "rank extents");
      std::memcpy(t.shape, shape, static_cast<std::size_t>(rank) * sizeof(int64_t));
    }
    regard::c_api::ToView(&t, "tensor");
    int64_t stride = 1;
    for (int d = rank - 1; d >= 0; --d) {
      t.stride[d] = stride;
      if (__builtin_mul_overflow(stride, t.shape[d] > 0 ? t.shape[d] : 1, &stride)) {
        throw Error("tensor.shape", std::to_string(t.shape[d]), "fewer than 2^63 elements");
      }
    }
    *tensor = t;
  });
}

regard_status regard_attention(const regard_args* args, const regard_options* options, regard_selection** selection) {
  return Run(&regard::Attention, args, options, selection);
}

regard_status regard_varlen_attention(const regard_args* args, const regard_options* options,
                                      regard_selection** selection) {
  return Run(&regard::VarlenAttention, args, options, selection);
}

regard_status regard_with_kvcache(const regard_args* args, const regard_options* options,
                                  regard_selection** selection) {
  return Run(&regard::WithKvCache, args, options, selection);
}

regard_status regard_attention_backward(const regard_backward_args* c_args, const regard_options* c_options,
                                        regard_selection** selection) {
  return Guarded([&] {
    if (selection != nullptr) *selection = nullptr;
    const regard::BackwardArgs args = regard::c_api::ToBackwardArgs(c_args);
    const regard::AttentionOptions options = regard::c_api::ToOptions(c_options);
    const regard::CallControl control = ControlOf(c_args->forward, c_options);
    auto handle = selection == nullptr ? nullptr : std::make_unique<regard_selection>();
    if (handle != nullptr) handle->problem = regard::BackwardProblemOf(args, options);
    regard::BackwardResult result = regard::AttentionBackward(args, options, control);
    if (handle == nullptr) return;
    handle->selection = std::move(result.selection);
    *selection = handle.release();
  });
}

regard_status regard_merge_states(const regard_tensor* o_a, const regard_tensor* lse_a, const regard_tensor* o_b,
                                  const regard_tensor* lse_b, const regard_tensor* out, const regard_tensor* lse_out) {
  return regard_merge_states_on(o_a, lse_a, o_b, lse_b, out, lse_out, nullptr);
}

regard_status regard_merge_states_on(const regard_tensor* o_a, const regard_tensor* lse_a, const regard_tensor* o_b,
                                     const regard_tensor* lse_b, const regard_tensor* out,
                                     const regard_tensor* lse_out, void* stream) {
  return Guarded([&] {
    using regard::c_api::ToView;
    regard::MergeStates(ToView(o_a, "o_a"), ToView(lse_a, "lse_a"), ToView(o_b, "o_b"), ToView(lse_b, "lse_b"),
                        ToView(out, "out"), ToView(lse_out, "lse_out"), {stream});
  });
}

regard_status regard_check_device(int32_t device_index, void* stream) {
  return Guarded([&] { regard::CheckDevice({regard::DeviceType::kCuda, device_index}, {stream}); });
}

regard_status regard_attention_probabilities(const regard_args* args, const regard_options* options,
                                             const regard_tensor* map) {
  return WriteMap(&regard::AttentionProbabilities, regard::DType::kF32, args, options, map);
}

regard_status regard_dropout_mask(const regard_args* args, const regard_options* options, const regard_tensor* map) {
  return WriteMap(&regard::DropoutMask, regard::DType::kBool, args, options, map);
}

regard_status regard_problem_parse(const char* problem, char* buffer, size_t buffer_bytes, size_t* needed) {
  return WriteText(
      [&] {
        Require(problem, "problem", "its text");
        const regard::Problem p = regard::ParseProblem(problem);
        regard::Validate(p);
        return regard::Print(p);
      },
      buffer, buffer_bytes, needed);
}

regard_status regard_problem_print(const regard_args* args, const regard_options* options, char* buffer,
                                   size_t buffer_bytes, size_t* needed) {
  return WriteText(
      [&] {
        return regard::Print(regard::ProblemOf(regard::c_api::ToArgs(args), regard::c_api::ToOptions(options)));
      },
      buffer, buffer_bytes, needed);
}

regard_status regard_backward_problem_print(const regard_backward_args* args, const regard_options* options,
                                            char* buffer, size_t buffer_bytes, size_t* needed) {
  return WriteText(
      [&] {
        return regard::Print(
            regard::BackwardProblemOf(regard::c_api::ToBackwardArgs(args), regard::c_api::ToOptions(options)));
      },
      buffer, buffer_bytes, needed);
}

regard_status regard_select(const char* problem, const char* kernels, const char* exclude,
                            regard_selection** selection) {
  return regard_select_on(problem, "cpu", kernels, exclude, selection);
}

regard_status regard_select_on(const char* problem, const char* device, const char* kernels, const char* exclude,
                               regard_selection** selection) {
  return Guarded([&] {
    Require(selection, "selection", "where to put the handle");
    *selection = nullptr;
    Require(problem, "problem", "its text");
    Require(device, "device", "its name");
    auto handle = std::make_unique<regard_selection>();
    handle->problem = regard::ParseProblem(problem);
    const regard::KernelChoice choice = regard::c_api::ToChoice(kernels, exclude);
    const regard::DeviceCaps caps = regard::DeviceByName("device", device);
    handle->selection = choice == regard::KernelChoice{} ? regard::Select(handle->problem, caps)
                                                         : regard::Select(handle->problem, caps, choice);
    *selection = handle.release();
  });
}

void regard_selection_destroy(regard_selection* selection) { delete selection; }

const char* regard_selection_kernel(const regard_selection* selection) {
  return selection == nullptr ? "" : selection->selection.kernel.c_str();
}

const char* regard_selection_numerics(const regard_selection* selection) {
  return selection == nullptr ? "" : selection->selection.numerics.c_str();
}

regard_status regard_selection_explain(const regard_selection* selection, regard_format format, char* buffer,
                                       size_t buffer_bytes, size_t* needed) {
  return WriteText(
      [&] {
        Require(selection, "selection", "a handle of regard_select");
        const int kind = static_cast<int>(format);
        if (kind != REGARD_TEXT && kind != REGARD_JSON) throw Error("format", std::to_string(kind), "a regard_format");
        const regard::Plan plan(selection->problem, selection->selection);
        const regard::DeviceCaps* gpu = selection->selection.gpu.get();
        return (kind == REGARD_JSON ? regard::ExplainJson : regard::ExplainText)(
            selection->problem, gpu != nullptr ? *gpu : regard::DeviceCaps::Host(), &plan, selection->selection);
      },
      buffer, buffer_bytes, needed);
}

regard_status regard_plan_create(const regard_selection* selection, int32_t threads, regard_plan** plan) {
  return Guarded([&] {
    Require(plan, "plan", "where to put the handle");
    *plan = nullptr;
    Require(selection, "selection", "a handle of regard_select");
    std::unique_ptr<regard::Executor> executor;
    if (threads != 0) executor.reset(regard::MakeExecutor(regard::ExecutorKind::kOpenMp, threads));
    regard::Plan made(selection->problem, selection->selection, executor.get());
    *plan = new regard_plan{std::move(executor), std::move(made)};
  });
}

void regard_plan_destroy(regard_plan* plan) { delete plan; }

size_t regard_plan_workspace_bytes(const regard_plan* plan) {
  return plan == nullptr ? 0 : plan->plan.workspace_bytes();
}

regard_status regard_launch(const regard_plan* plan, const regard_args* args, void* workspace, size_t workspace_bytes) {
  return Guarded([&] {
    Require(plan, "plan", "a handle of regard_plan_create");
    regard::Launch(plan->plan, regard::c_api::ToArgs(args), {workspace, workspace_bytes}, regard::c_api::ToStream(args));
  });
}

regard_status regard_launch_backward(const regard_plan* plan, const regard_backward_args* args, void* workspace,
                                     size_t workspace_bytes) {
  return Guarded([&] {
    Require(plan, "plan", "a handle of regard_plan_create");
    const regard::BackwardArgs call = regard::c_api::ToBackwardArgs(args);
    regard::LaunchBackward(plan->plan, call, {workspace, workspace_bytes}, regard::c_api::ToStream(args->forward));
  });
}

size_t regard_kernel_count(void) { return regard::AllKernels().size(); }

const char* regard_kernel_name(size_t index) {
  const auto kernels = regard::AllKernels();
  return index < kernels.size() ? kernels[index]->name : nullptr;
}

}  // extern "C"
