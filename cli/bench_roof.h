// The limit that a case is held against: arithmetic for prefill and backward, reading for decode, for a mixed batch whichever of the
// two takes longer at its limit.
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

  const std::string& name() const { return name_; }  // fma_f32, dot_bf16, read, read_pages
  bool reads() const { return read_.has_value(); }
  std::string how() const;      // which loop was best
  double Run(double seconds);   // once; GB/s or GFLOP/s. `seconds`: length of an arithmetic probe

 private:
  Executor& executor_;
  Isa isa_;
  probe::FlopsKind kind_ = probe::FlopsKind::kFmaF32;
  std::optional<probe::ReadRoof> read_;
  std::string name_;
};

}  // namespace regard::cli
