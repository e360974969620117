// What a cubin says of its kernel. A cubin is an ELF file for the GPU: the entry point's code is section .text.NAME,
// its static shared memory the size of .nv.shared.NAME, and .nv.info and .nv.info.NAME hold attributes, each of them
// {u8 form, u8 attribute, u16 value or size, payload}. Spills are not in it: ptxas says them in the compiler's log.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "src/cuda/driver/instance.h"

namespace regard::cuda {

struct CubinInfo {
  int sm = 0;                      // 80; 0 where this layout of the header does not say it
  int registers = 0;               // of a thread
  int max_threads = 0;             // of a block, from the launch bounds; 0: none given
  unsigned shared_bytes = 0;       // static ones, without what the hardware keeps for itself
  unsigned stack_bytes = 0;        // frame of a thread, spills included
  unsigned parameter_bytes = 0;
  unsigned code_bytes = 0;
  unsigned barriers = 0;
};

// Throws Error{"cuda.cubin"} where the bytes are no cubin or hold no such entry point. Reads only inside `cubin`.
CubinInfo ReadCubin(std::string_view cubin, const std::string& entry = kEntryPoint);

struct Spills {
  unsigned store_bytes = 0, load_bytes = 0;
  unsigned bytes() const noexcept { return store_bytes + load_bytes; }
};
// Summed over all functions in a log made with --ptxas-options=-v; absent where the log says nothing of it.
std::optional<Spills> SpillsInLog(std::string_view log);

}  // namespace regard::cuda
