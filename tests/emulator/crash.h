// A kernel that divides a whole number by zero, or reaches memory past the views of ptx/memory.h, stops the process on
// the host. Before it goes, one line says which kernel, block and thread that was.
#pragma once

namespace regard::emulator {

// Installed once for the process; a sanitizer's own handlers stay.
void SayWhereKernelsCrash();

}  // namespace regard::emulator
