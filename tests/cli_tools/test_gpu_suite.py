"""regard bench --suite gpu and the lists of cases, on a machine that needs no GPU."""
import unittest

import tool


class GpuSuite(tool.ToolTest):
    def cases(self, *words):
        return self.good(*words, "--list").stdout.splitlines()

    def test_list_names_cases_that_every_command_takes(self):
        cases = self.cases("bench", "--suite", "gpu")
        self.assertGreater(len(cases), 20)
        self.assertEqual(len(cases), len(set(cases)))
        for case in cases[::6]:
            self.assertTrue(self.good_json("explain", "--json", "--device", "H100", case)["chosen"]["kernel"].startswith("cuda."))

    def test_suite_holds_what_the_goals_are_about(self):
        cases = self.cases("bench", "--suite", "gpu")
        for case in ("prefill b=4 sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal",
                     "decode b=16 sq=1 skv=32768 hq=32 hkv=8 d=128 dtype=bf16"):
            self.assertIn(case, cases)
        for words in (" d=64 ", " page=1 ", " page=256 ", " kv=f8e4m3", "backward ", " hkv=32 ", " sq=16384 "):
            self.assertTrue(any(words in case + " " for case in cases), words)

    def test_rows_choose_among_the_listed_cases(self):
        some = self.cases("bench", "--suite", "gpu", "--rows", "decode 32k")
        self.assertTrue(some)
        self.assertTrue(all(case.startswith("decode") and "skv=32768" in case for case in some))

    def test_without_a_gpu_the_suite_is_refused_before_anything_is_measured(self):
        line = self.refused("bench", "--suite", "gpu", REGARD_LIBCUDA="/absent")
        self.assertIn("REGARD_LIBCUDA=/absent", line)

    def test_check_lists_its_cases_and_runs_none(self):
        self.assertEqual(self.cases("check", "decode skv=64", "decode skv=65 hq=4 hkv=2")[0].split()[0], "decode")
        quick, whole = self.cases("check", "--quick"), self.cases("check", "--all")
        self.assertGreater(len(quick), 100)
        self.assertGreater(len(whole), len(quick))


if __name__ == "__main__":
    tool.main()
