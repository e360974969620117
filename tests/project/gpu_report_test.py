"""bench/gpu_report.py on figures made by hand: which cases meet, what decides a goal, what the page shows."""
import importlib.util
import json
import os
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPEC = importlib.util.spec_from_file_location("gpu_report", os.path.join(ROOT, "bench", "gpu_report.py"))
report = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(report)

PREFILL = "prefill b=4 sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal"
DECODE = "decode b=16 sq=1 skv=32768 hq=32 hkv=8 d=128 dtype=bf16"


def own(case, gflops=0.0, gbps=0.0):
    return {"case": case, "row": None, "kernel": "cuda.sm80", "median_ms": 1.0, "gflops": gflops, "gbps": gbps}


def library(name, tflops=0.0, gbps=0.0):
    return {"name": name, "median_ms": 1.0, "tflops": tflops, "gbps": gbps}


class GpuReport(unittest.TestCase):
    def test_goal_of_prefill_is_torchs_flash_in_the_same_run(self):
        for mine, met in ((401e3, True), (399e3, False)):
            peers = {"results": [{"case": PREFILL, "reads": False, "libraries": [library("torch-flash", 400)]}]}
            entries = report.merged({"results": [own(PREFILL, gflops=mine)]}, peers)
            (words, reached), = report.goals(entries, None)
            self.assertEqual(reached, met)
            self.assertIn("torch's flash 400", words)

    def test_prefill_that_torch_did_not_run_decides_nothing(self):
        entries = report.merged({"results": [own(PREFILL, gflops=1e3)]}, None)
        self.assertEqual(report.goals(entries, 3000), [])

    def test_goal_of_decode_is_a_share_of_the_copy(self):
        entries = report.merged({"results": [own(DECODE, gbps=2500)]}, None)
        self.assertEqual([met for _, met in report.goals(entries, 3000)], [True])
        self.assertEqual([met for _, met in report.goals(entries, 3200)], [False])
        self.assertEqual(report.goals(entries, None), [])

    def test_goals_look_at_no_other_case(self):
        cases = [PREFILL.replace("d=128", "d=64"), PREFILL.replace("bf16", "f16"), PREFILL.replace(" causal", ""),
                 DECODE + " page=16", DECODE + " kv=f8e4m3", DECODE.replace("b=16", "b=1")]
        peers = {"results": [{"case": c, "reads": c[0] == "d", "libraries": [library("torch-flash", 1, 1)]} for c in cases]}
        entries = report.merged({"results": [own(c, 5e3, 5) for c in cases]}, peers)
        self.assertEqual(len(entries), len(cases))
        self.assertEqual(report.goals(entries, 10), [])

    def test_table_has_a_column_for_each_library_with_regard_first(self):
        libraries = [library("torch-math", 1, 30), library("regard", 2, 60)]
        peers = {"results": [{"case": DECODE, "reads": True, "libraries": libraries}]}
        lines = report.text_table(report.merged({"results": [own(DECODE, gbps=70)]}, peers)).splitlines()
        self.assertEqual(lines[0].split(), ["case", "unit", "regard", "regard", "in", "Python", "torch-math"])
        self.assertEqual(lines[1].split()[-4:], ["GB/s", "70", "60", "30"])

    def test_page_is_written_from_whatever_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(report.main(folder), 0)
            with open(os.path.join(folder, "info.txt"), "w", encoding="utf-8") as file:
                file.write("cuda:0 <GPU>")
            with open(os.path.join(folder, "bench.json"), "w", encoding="utf-8") as file:
                json.dump({"commit": "abc", "results": [own(DECODE, gbps=70)]}, file)
            report.main(folder)
            with open(os.path.join(folder, "report.html"), encoding="utf-8") as file:
                page = file.read()
            for words in ("cuda:0 &lt;GPU&gt;", "commit abc", DECODE, "GB/s"):
                self.assertIn(words, page)
            with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
                self.assertEqual(json.load(file)["regard"]["commit"], "abc")


if __name__ == "__main__":
    unittest.main()
