// Bank conflicts of one block's shared memory: 32 banks of 4 bytes. Accesses of a warp's lanes between two points where
// they meet are put together line by line, in the order of each lane; an instruction of 4-byte elements (or smaller)
// takes as many passes as some bank has distinct words, one of 8 bytes is made by half-warps and one of 16 bytes by
// quarter-warps. Costs time, so that a launch counts only on request. Owns its logs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/emulator/report.h"

namespace regard::emulator {

struct BankCount {
  std::int64_t instructions = 0;  // of warps
  std::int64_t passes = 0;
  std::int64_t ideal = 0;  // passes without a conflict
  std::int64_t conflicts() const { return passes - ideal; }
  void Add(const BankCount& other) {
    instructions += other.instructions;
    passes += other.passes;
    ideal += other.ideal;
  }
};
// By line of source ("forward.h:12").
using BankCounts = std::map<std::string, BankCount>;

class BankCounter {
 public:
  void Reset(int threads);
  void Log(int thread, const Site& site, std::uint32_t offset, std::uint32_t bytes) {
    logs_[static_cast<std::size_t>(thread)].push_back({site, offset, bytes});
  }
  // The lanes of `warp` meet: what they logged becomes instructions.
  void Meet(int warp);
  // ldmatrix: `rows` addresses of 16 bytes, eight a matrix.
  void CountMatrices(const Site& site, const std::uint32_t* offsets, int rows);
  const BankCounts& counts() const { return counts_; }

 private:
  struct Access {
    Site site;
    std::uint32_t offset, bytes;
  };
  void Count(const Site& site, const Access* const* accesses, int n);

  std::vector<std::vector<Access>> logs_;
  BankCounts counts_;
};

}  // namespace regard::emulator
