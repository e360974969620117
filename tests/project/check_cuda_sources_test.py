"""check_cuda_sources.py finds lines that are planted, and passes a tree without any."""
import contextlib
import io
import os
import tempfile
import unittest

import check_cuda_sources

PARAMS = "// Parameters.\n#pragma once\nstruct P {\n  const int* table = nullptr;\n  void* data = nullptr;\n};\n"
GOOD = """// A kernel: threadIdx, asm and *p in a comment are no fault.
#pragma once

#include "base/params.h"
#include "ptx/thread.h"

REGARD_DEVICE int Twice(const P& p, int i, float (&d)[4]) {
  const int a = i * 2, b = a * p.count;
  d[0] = 2 * (a + b);
  return Global<const int>(p.table).Load(i) * (a + b) * b;
}
"""
THREAD = "// Threads.\n#pragma once\ninline int T(int* p) { asm(\"bar.sync 0;\"); return *p + p[1] + threadIdx.x; }\n"


class CheckCudaSources(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.write("base/params.h", PARAMS)
        self.write("ptx/thread.h", THREAD)
        self.write("sm80/good.h", GOOD)

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = os.path.join(self.folder.name, "src/cuda/kernels", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def check(self):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            result = check_cuda_sources.main(self.folder.name)
        return result, said.getvalue()

    def test_a_good_tree_passes(self):
        self.assertEqual(self.check(), (0, "3 files, 0 faults\n"))

    def test_an_empty_tree_fails(self):
        with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(check_cuda_sources.main(empty), 1)

    def test_planted_lines_are_found(self):
        for line, words in (
                ("int x = threadIdx.x;", "threadIdx belongs into ptx/"),
                ('asm volatile("bar.sync 0;");', "asm belongs into ptx/"),
                ("__shared__ float s[4];", "__shared__ belongs into ptx/"),
                ("__syncthreads();", "__syncthreads belongs into ptx/"),
                ("float y = __shfl_xor_sync(m, x, 1);", "__shfl_xor_sync belongs into ptx/"),
                ("float y = __ldg(p.table);", "__ldg belongs into ptx/"),
                ("atomicAdd(p.table, 1);", "atomicAdd belongs into ptx/"),
                ("int x = p.table[3];", "table is dereferenced"),
                ("int x = *p.table;", "table is dereferenced"),
                ("int x = 2 + *p.table;", "table is dereferenced"),
                ("return *(p.table + 3);", "(...) is dereferenced"),
                ("const float* row = Row(); float z = row[i];", "row is dereferenced"),
                ("const float* row = Row(); *row = 1;", "row is dereferenced"),
                ("int x = task->b;", "-> follows a pointer"),
                ("auto q = reinterpret_cast<const float*>(p.data);", "reinterpret_cast belongs into ptx/"),
                ("float z = std::exp2(x);", "std:: is no part"),
                ("#include <stdint.h>", "includes <stdint.h>, which is no file of the kernels"),
                ('#include "cuda_fp16.h"', 'includes "cuda_fp16.h", which is no file of the kernels'),
                ('#include "../ptx/thread.h"', "which is no file of the kernels")):
            with self.subTest(line):
                self.write("sm80/good.h", GOOD + line + "\n")
                result, said = self.check()
                self.assertEqual(result, 1)
                self.assertIn(f"src/cuda/kernels/sm80/good.h:{GOOD.count(chr(10)) + 1}: ", said)
                self.assertIn(words, said)

    def test_a_file_without_head_or_guard_is_found(self):
        self.write("sm80/good.h", GOOD.split("\n", 1)[1])
        self.assertIn("good.h:1: no comment at the head", self.check()[1])
        self.write("sm80/good.h", GOOD.replace("#pragma once\n", ""))
        self.assertIn("good.h:1: no #pragma once", self.check()[1])


if __name__ == "__main__":
    unittest.main()
