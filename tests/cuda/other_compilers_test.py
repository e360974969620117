"""The kernels are CUDA C++ for every compiler, not NVRTC's alone: one instance of each family goes through clang and nvcc,
where they are found (clang on the PATH; nvcc there, or in CUDA_HOME). Usage: other_compilers_test.py KERNELS_FOLDER."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

KERNELS = os.path.abspath(sys.argv.pop(1))

SOURCES = {
    "prefill": ("sm80/prefill.h", "TensorConfig", "Products::kK16, Element::kBF16, false, false, 64, 64, 4, 1, 1, false, false",
                "ForwardParams", "sm80::PrefillKernel<kConfig>"),
    "decode": ("sm80/decode.h", "TensorConfig", "Products::kK16, Element::kF16, false, true, 128, 96, 4, 1, 2, true, true",
               "ForwardParams", "sm80::DecodeKernel<kConfig>"),
    "generic": ("generic/forward.h", "GenericConfig", "64, 64, true", "ForwardParams", "generic::ForwardKernel<kConfig>"),
    "backward": ("generic/backward.h", "int", "64", "BackwardParams", "generic::KeyGradientKernel<kConfig, kConfig>"),
    "append": ("generic/append.h", "int", "0", "AppendParams", "generic::AppendKernel"),
}


def text_of(header, config_type, config, params, function):
    return (f'#include "{header}"\nnamespace regard::cuda {{\ninline constexpr {config_type} kConfig{{{config}}};\n'
            f"REGARD_KERNEL(128, 1, {params}, {function})\n}}  // namespace regard::cuda\n")


def find_clang():
    names = ["clang++"] + [f"clang++-{n}" for n in range(30, 13, -1)]
    return next((path for path in map(shutil.which, names) if path), None)


def find_nvcc():
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=os.path.join(home, "bin")) if home else None)


class OtherCompilers(unittest.TestCase):
    def compile_all(self, command, suffix, entry):
        for name, source in SOURCES.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                unit, result = os.path.join(folder, "unit.cu"), os.path.join(folder, "unit" + suffix)
                with open(unit, "w", encoding="utf-8") as file:
                    file.write(text_of(*source))
                done = subprocess.run([*command, "-std=c++20", "-I", KERNELS, "-o", result, unit],
                                      capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
                self.assertEqual(done.returncode, 0, done.stderr[:4000])
                with open(result, "rb") as file:
                    self.assertIn(entry, file.read())

    def test_clang_compiles_every_family_to_ptx(self):
        clang = find_clang()
        if clang is None:
            self.skipTest("no clang++ of version 14 or newer")
        self.compile_all([clang, "-x", "cuda", "--cuda-gpu-arch=sm_80", "--cuda-device-only", "-nocudainc", "-nocudalib",
                          "-ffp-contract=off", "-O1", "-Wno-unknown-cuda-version", "-Xclang", "-target-feature", "-Xclang",
                          "+ptx75", "-S"], ".ptx", b".entry regard_kernel")

    def test_nvcc_compiles_every_family_to_a_cubin(self):
        nvcc = find_nvcc()
        if nvcc is None:
            self.skipTest("no nvcc on the PATH or in CUDA_HOME")
        self.compile_all([nvcc, "-arch=sm_80", "--fmad=false", "-cubin"], ".cubin", b"regard_kernel")


if __name__ == "__main__":
    unittest.main(verbosity=2)
