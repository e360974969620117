"""regard cuda: compile and cache, on a machine that needs no GPU. NVRTC is the one of scripts/setup_cuda, or what
REGARD_NVRTC names; CUDA_FAKES is the folder of stand-ins that tests/cuda builds."""
import glob
import json
import os
import tempfile
import unittest

import tool

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOUND = sorted(glob.glob(os.path.join(ROOT, "build/cuda-nvrtc/libnvrtc.so.*")))
NVRTC = os.environ.get("REGARD_NVRTC") or (FOUND[-1] if FOUND else "")
FAKES = os.environ.get("CUDA_FAKES", "")
FAKE = os.path.join(FAKES, "libfake_nvrtc13.so")  # crashes when told to
FAKE_DRIVER_12 = os.path.join(FAKES, "libfake_driver12.so")
needs_fakes = unittest.skipUnless(os.path.exists(FAKE), "CUDA_FAKES names no folder of stand-ins")
needs_nvrtc = unittest.skipUnless(NVRTC, "no NVRTC here; run scripts/setup_cuda")

KERNEL = 'extern "C" __global__ __launch_bounds__(%d) void regard_kernel(float* x) {\n%s}\n'
PLAIN = KERNEL % (128, "  __shared__ float s[32];\n  s[threadIdx.x % 32] = x[0];\n  __syncthreads();\n  *x = s[3];\n")
GREEDY = KERNEL % (1024, "  float v[128];\n  for (int i = 0; i < 128; ++i) v[i] = x[i * 1024 + threadIdx.x];\n"
                   "  __syncthreads();\n"
                   "  for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x] = v[i] + v[(i * 37 + 11) % 128];\n")
WRONG = KERNEL % (128, "  *x = nowhere;\n")


class Cuda(tool.ToolTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.environment = {"REGARD_NVRTC": NVRTC, "REGARD_CUDA_CACHE": os.path.join(self.folder.name, "cache")}

    def tearDown(self):
        self.folder.cleanup()

    def source(self, name, text):
        path = os.path.join(self.folder.name, name + ".cu")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"// instance {name}\n{text}")
        return "--source=" + path

    def compile(self, *words, **environment):
        return tool.run("cuda", "compile", *words, **{**self.environment, **environment})

    @needs_nvrtc
    def test_compile_prints_resources_of_each_kernel_on_each_architecture(self):
        done = self.compile("--arch", "sm_80,sm_90a", self.source("plain", PLAIN))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for word in ("sm_80", "sm_90a", "plain", "registers", "spills", "occupancy", "2 compiled, 0 failed"):
            self.assertIn(word, done.stdout)
        self.assertEqual(done.stderr, "", "progress is for terminals")

    @needs_nvrtc
    def test_json_has_the_figures_of_the_cubin(self):
        done = self.compile("--arch", "sm_80", "--json", self.source("plain", PLAIN))
        kernel, = json.loads(done.stdout)["kernels"]
        self.assertEqual((kernel["name"], kernel["arch"], kernel["threads"]), ("plain", "sm_80", 128))
        self.assertEqual((kernel["static_shared_bytes"], kernel["spill_store_bytes"], kernel["error"]), (128, 0, ""))
        self.assertEqual((kernel["occupancy_blocks"], kernel["occupancy"]), (16, 1.0))
        self.assertGreater(kernel["cubin_bytes"], kernel["code_bytes"])

    @needs_nvrtc
    def test_instructions_are_counted_where_a_disassembler_is_found(self):
        listing = """\t.text.regard_kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/              @!P0 HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0020*/                   LDSM.16.MT88.4 R8, [R3] ;
        /*0030*/                   LDGSTS.E.BYPASS.128 [R3], [R2.64] ;
        /*0040*/               @P1 MUFU.EX2 R4, R5 ;
        /*0050*/                   FFMA R4, R5, R6, R7 ;
        /*0060*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
"""
        path = os.path.join(self.folder.name, "nvdisasm")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\n[ "$(head -c 4 "$2")" = "$(printf \'\\177ELF\')" ] || exit 1\ncat <<END\n{listing}END\n')
        os.chmod(path, 0o755)
        found = {"PATH": self.folder.name + ":" + os.environ["PATH"]}
        done = self.compile("--arch=sm_80", "--json", self.source("plain", PLAIN), **found)
        kernel, = json.loads(done.stdout)["kernels"]
        self.assertEqual(kernel["instructions"],
                         {"async": 1, "exp2": 1, "f32": 1, "ldmatrix": 1, "other": 1, "tensor": 2})
        done = self.compile("--arch=sm_80", self.source("plain", PLAIN), **found)
        self.assertRegex(done.stdout, r"sm_80 plain +2 +1 +0 +1 +0 +0 +1 +1 +1\n")
        os.remove(path)
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 3\n")
        os.chmod(path, 0o755)
        done = self.compile("--arch=sm_80", self.source("plain", PLAIN), **found)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nvdisasm", done.stdout)

    @needs_nvrtc
    def test_failures_and_spills_give_exit_code_1_and_the_others_are_compiled(self):
        done = self.compile("--arch=sm_80", self.source("wrong", WRONG), self.source("greedy", GREEDY),
                            self.source("plain", PLAIN))
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("failed   wrong for sm_80: wrong.cu(3): error: identifier \"nowhere\" is undefined", done.stdout)
        self.assertRegex(done.stdout, r"spills   greedy for sm_80: \d+ bytes, and cli/known_spills.h lists no reason")
        self.assertRegex(done.stdout, r"(?m)^plain ")
        self.assertIn("3 kernels", done.stdout)

    @needs_nvrtc
    def test_keep_leaves_source_log_and_cubin(self):
        folder = os.path.join(self.folder.name, "a/b")
        self.compile("--arch=sm_80", self.source("plain", PLAIN), "--keep", folder)
        self.assertEqual(sorted(os.listdir(folder)), ["plain.sm_80.cu", "plain.sm_80.cubin", "plain.sm_80.log"])
        with open(os.path.join(folder, "plain.sm_80.cubin"), "rb") as file:
            self.assertEqual(file.read(4), b"\x7fELF")

    @needs_fakes
    def test_a_compiler_that_crashes_fails_one_kernel_and_spares_the_others(self):
        sources = [self.source("crashes", "#crash\n")] + [self.source(f"k{i}", "text\n") for i in range(5)]
        done = self.compile("--arch=sm_80", "-j2", *sources, REGARD_NVRTC=FAKE)
        self.assertEqual(done.returncode, 1)
        self.assertIn("failed   crashes for sm_80: the compiler crashed (Aborted)", done.stdout)
        for i in range(5):  # the stand-in's output is no cubin
            self.assertIn(f"failed   k{i} for sm_80: cuda.cubin: ", done.stdout)

    @needs_nvrtc
    def test_every_kernel_is_listed_and_the_beginning_of_a_name_or_a_pattern_chooses(self):
        everything = self.compile("--arch=sm_80", "--all", "--list").stdout.split("\n")[:-1]
        self.assertGreater(len(everything), 10)
        self.assertEqual(len(everything), len(set(everything)))
        name = everything[0].split()[1]
        self.assertEqual(self.compile("--arch=sm_80", "--list", name).stdout.split("\n")[0], "sm_80 " + name)
        some = self.compile("--arch=sm_80", "--list", "*bf16*").stdout.split("\n")[:-1]
        self.assertEqual(some, [line for line in everything if "bf16" in line])
        self.assertTrue(some)

    def test_bad_input_is_refused_in_one_line_with_the_way_out(self):
        for words, parts in ((("--arch=ampere", "--all"), ("--arch: ampere", "sm_80")),
                             (("--all",), ("--arch is required", "regard cuda compile --help")),
                             (("--arch=sm_80",), ("kernels: none", "--all")),
                             (("--arch=sm_80", "no.such.kernel"), ("kernel: no.such.kernel", "--list")),
                             (("--arch=sm_80", "--source=/absent"), ("--source: /absent", "can be read")),
                             (("--arch=sm_80", "--all", "-j0"), ("--jobs",))):
            line = self.refused("cuda", "compile", *words, **self.environment)
            for part in parts:
                self.assertIn(part, line)
        path = os.path.join(self.folder.name, "nameless.cu")
        with open(path, "w", encoding="utf-8") as file:
            file.write("int x;\n")
        self.assertIn("// instance NAME", self.refused("cuda", "compile", "--arch=80", "--source", path))
        self.assertIn("regard cuda --help", self.refused("cuda"))

    def test_without_nvrtc_the_refusal_says_what_to_install(self):
        line = self.refused("cuda", "compile", "--arch=sm_80", self.source("plain", PLAIN), REGARD_NVRTC="/absent")
        self.assertIn("REGARD_NVRTC=/absent cannot be used", line)
        self.assertIn("pip install nvidia-cuda-nvrtc", line)

    @needs_fakes
    def test_architecture_that_nvrtc_no_longer_has_is_refused_with_the_one_that_does(self):
        line = self.refused("cuda", "compile", "--arch=sm_70", self.source("plain", PLAIN), REGARD_NVRTC=FAKE)
        self.assertIn("NVRTC 13.1 starts at sm_75, this is sm_70", line)
        self.assertIn("nvidia-cuda-nvrtc-cu12", line)

    CASE = "decode b=2 sq=1 skv=300 hq=8 hkv=2 d=64 dtype=f16"

    @needs_nvrtc
    def test_warm_compiles_what_a_case_needs_once_and_finds_it_the_next_time(self):
        first = self.good_json("cuda", "warm", self.CASE, "--arch=sm_80", "--json", **self.environment)
        self.assertTrue(first["kernels"])
        self.assertEqual({k["origin"] for k in first["kernels"]}, {"compiled"})
        self.assertEqual(len(glob.glob(first["folder"] + "/*.cubin")), len(first["kernels"]))
        again = self.good("cuda", "warm", *self.CASE.split(), "--arch=sm_80", **self.environment).stdout
        self.assertIn(f"0 compiled, {len(first['kernels'])} found", again)
        for kernel in first["kernels"]:
            self.assertIn(kernel["kernel"], again)
        both = self.good_json("cuda", "warm", self.CASE, "--arch=sm_80,sm_90", "--json", **self.environment)["kernels"]
        self.assertEqual({(k["arch"], k["origin"]) for k in both}, {("sm_80", "disk"), ("sm_90", "compiled")})

    @needs_nvrtc
    def test_warm_takes_every_phase_and_shares_kernels_between_cases(self):
        cases = ["prefill sq=64 skv=64 hq=4 hkv=2 d=32 dtype=f32",
                 "decode sq=1 skv=5000 hq=4 hkv=2 d=32 dtype=f32 append=1",
                 "mixed b=2 sq=20 skv=64 hq=4 hkv=2 d=32 dtype=f32"]
        warmed = self.good_json("cuda", "warm", *cases, "--arch=sm_80", "--json", **self.environment)["kernels"]
        names = [kernel["kernel"] for kernel in warmed]
        self.assertEqual(len(names), len(set(names)))
        for part in ("generic.prefill", "generic.decode", "combine", "append"):
            self.assertTrue(any(name.startswith(part) for name in names), names)

    @needs_nvrtc
    def test_warm_without_a_cache_folder_compiles_and_says_so(self):
        with open(os.path.join(self.folder.name, "file"), "w", encoding="utf-8") as file:
            file.write("in the way")
        self.environment["REGARD_CUDA_CACHE"] = file.name + "/cache"
        done = self.good("cuda", "warm", self.CASE, "--arch=sm_80", **self.environment)
        self.assertIn("compiled, 0 found", done.stdout)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("the CUDA cache", done.stderr)

    @needs_nvrtc
    def test_warm_refuses_bad_cases_and_machines_without_a_gpu(self):
        self.assertIn("hq: 7", self.refused("cuda", "warm", "decode hq=7 hkv=2", "--arch=sm_80", **self.environment))
        line = self.refused("cuda", "warm", self.CASE, REGARD_LIBCUDA="/absent/libcuda.so.1", **self.environment)
        self.assertIn("REGARD_LIBCUDA=/absent/libcuda.so.1", line)

    @needs_fakes
    def test_a_driver_that_is_older_than_nvrtc_keeps_from_running_and_not_from_looking(self):
        pair = {"REGARD_NVRTC": FAKE, "REGARD_LIBCUDA": FAKE_DRIVER_12}
        line = self.refused("cuda", "warm", self.CASE, "--arch=sm_80", **{**self.environment, **pair})
        self.assertIn("NVRTC 13 makes code for drivers of CUDA 13; this driver is of CUDA 12.4", line)
        self.assertIn("pip install nvidia-cuda-nvrtc-cu12", line)
        done = self.compile("--arch=sm_80", self.source("text", "text\n"), **pair)
        self.assertIn("failed   text for sm_80: cuda.cubin: ", done.stdout, "compiled, to what is no cubin")

    def test_cache_names_its_folder_and_what_it_holds_and_clears_it(self):
        folder = self.environment["REGARD_CUDA_CACHE"]
        os.makedirs(folder)
        with open(os.path.join(folder, "0" * 32 + ".cubin"), "wb") as file:
            file.write(b"x" * 1000)
        self.assertIn(folder, self.good("cuda", "cache", **self.environment).stdout)
        shown = self.good_json("cuda", "cache", "--json", REGARD_CUDA_CACHE_BYTES="4096", **self.environment)
        self.assertEqual(shown, {"folder": folder, "entries": 1, "bytes": 1000, "limit_bytes": 4096, "cleared": False})
        self.good("cuda", "cache", "--clear", **self.environment)
        self.assertEqual(os.listdir(folder), [])


tool.main()
