// C structs to their C++ counterparts. Nothing is owned: views and pointers lead to the caller's memory.
#pragma once

#include "regard/attention.h"
#include "regard/c_api.h"

namespace regard::c_api {

// Each throws Error naming the C field. None allocates unless it throws (ToChoice apart).
TensorView ToView(const regard_tensor* tensor, const char* field);  // null is an error
AttentionArgs ToArgs(const regard_args* args, bool needs_out = true);
BackwardArgs ToBackwardArgs(const regard_backward_args* args);
Stream ToStream(const regard_args* args);
AttentionOptions ToOptions(const regard_options* options);  // null: defaults
// Comma-separated patterns; null: none.
KernelChoice ToChoice(const char* kernels, const char* exclude);
KernelChoice ToChoice(const regard_options* options);

}  // namespace regard::c_api
