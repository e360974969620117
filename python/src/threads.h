// Threads of a call, and the GIL while it computes.
#pragma once

#include <Python.h>

#include "regard/executor.h"

namespace regard::python {

// The executor of the calling thread: REGARD_THREADS where it is set, else as many threads as OpenMP gives a region of
// this thread (all cores; OMP_NUM_THREADS; torch.set_num_threads, which sets the same number in the shared runtime).
Executor& CallerExecutor();

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace regard::python
