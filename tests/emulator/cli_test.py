"""The command on emulated GPUs: argv[1] is regard, argv[2] and argv[3] the fake driver and NVRTC, argv[4] a folder for the cache."""
import json
import os
import subprocess
import sys
import unittest

REGARD, LIBCUDA, NVRTC, CACHE = sys.argv[1:5]
sys.argv[1:] = []
CASE = "decode b=2 sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 page=16"


class CommandOnGpus(unittest.TestCase):
    def run_good(self, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith("REGARD_")}
        env.update(REGARD_LIBCUDA=LIBCUDA, REGARD_NVRTC=NVRTC, REGARD_CUDA_CACHE=CACHE, FAKE_CUDA_GPUS="T4,A100")
        done = subprocess.run([REGARD, *args], capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_info_shows_each_gpu(self):
        text = self.run_good("info")
        self.assertRegex(text, r"cuda:0 +NVIDIA .*T4.*sm_75")
        self.assertRegex(text, r"cuda:1 +NVIDIA .*A100.*sm_80")
        self.assertEqual([gpu["sm"] for gpu in json.loads(self.run_good("info", "--json"))["gpus"]], [75, 80])

    def test_list_knows_which_kernels_run_here(self):
        here = {k["kernel"] for k in json.loads(self.run_good("list", "--json")) if k["here"]}
        self.assertTrue({"cuda.sm75.decode.f16", "cuda.sm80.decode.bf16", "cuda.generic.backward.f32", "reference"} <= here)

    def test_explain_plans_for_a_gpu_of_this_machine(self):
        explained = json.loads(self.run_good("explain", CASE, "--device", "cuda", "--json"))
        self.assertFalse(explained["device"]["pretended"])
        self.assertEqual(explained["chosen"]["kernel"], "cuda.sm75.decode.f16")
        self.assertEqual(len(explained["plan"]["instances"]), 2)

    def test_run_copies_the_case_there_and_holds_the_result_to_the_accuracy_rule(self):
        text = self.run_good("run", CASE, "--backend", "cuda")
        self.assertIn("cuda.sm75.decode.f16", text)
        self.assertRegex(text, r"error .* ok")
        self.assertIn("T4", text)

    def test_check_runs_the_kernels_of_a_backend(self):
        text = self.run_good("check", CASE, "--backend", "cuda")
        self.assertIn("cuda.sm75.decode.f16", text)
        self.assertIn("all within the accuracy rule", text)
        self.assertNotIn("cpu.", text)

    def test_bench_holds_a_case_against_the_gpus_peak(self):
        text = self.run_good("bench", CASE, "--backend", "cuda", "--repeat", "1", "--json", "-")
        result = json.loads(text)["results"][0]
        self.assertEqual(result["kernel"], "cuda.sm75.decode.f16")
        self.assertEqual(result["roof"], "gpu_memory")


unittest.main(verbosity=1)
