// The limit that a case is held against: arithmetic for prefill and backward, reading for decode, for a mixed batch whichever of the
// two takes longer at its limit. Of the CPU they are measured, of a GPU the vendor's peaks.
#pragma once

#include <optional>
#include <string>

#include "cli/prepared_case.h"
#include "src/cpu/probe/roof.h"

namespace regard::cli {

class Roof {
 public:
  // Over the memory of `prepared` and on `executor`; both outlive the roof.
  Roof(const PreparedCase& prepared, Executor& executor);

  // fma_f32, dot_bf16, read, read_pages; of a GPU tensor_f16, cuda_f32, gpu_memory
  const std::string& name() const { return name_; }
  bool reads() const { return read_.has_value() || name_ == "gpu_memory"; }
  std::string how() const;      // which loop was best
  double Run(double seconds);   // once; GB/s or GFLOP/s. `seconds`: length of an arithmetic probe

 private:
  Executor& executor_;
  Isa isa_;
  probe::FlopsKind kind_ = probe::FlopsKind::kFmaF32;
  std::optional<probe::ReadRoof> read_;
  std::string name_;
  double peak_ = 0;  // of a GPU; 0: measured
};

}  // namespace regard::cli
