// NumPy's .npy files: f32, f16, bf16 (as ml_dtypes writes it: descr '<V2' or 'bfloat16'), i32, u8, bool; i64 is read as
// i32 where every value fits. Format: numpy.org, "numpy.lib.format", versions 1.0 to 3.0. Row-major, rank 0 to 5.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "regard/tensor.h"
#include "src/cases/buffer.h"

namespace regard::cli {

// A tensor that owns its memory. A file of rank 0 reads as shape (1).
struct NpyArray {
  cases::Buffer memory;
  TensorView view;
};

// Throws Error{field}: no such file, not a .npy file, header that lies or that this reader does not take.
NpyArray ReadNpy(const std::string& field, const std::string& path);
// The same from bytes in memory; `name` stands for the file in messages.
NpyArray ParseNpy(const std::string& field, const std::string& name, std::span<const std::byte> bytes);

// Writes the elements in row-major order, whatever the view's strides. bf16 is written as '<V2'.
void WriteNpy(const std::string& field, const std::string& path, const TensorView& view);

}  // namespace regard::cli
