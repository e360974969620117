import json
import os
import re
import signal
import subprocess
import tempfile
import time

import tool

PREFILL = "prefill b=1 sq=64 skv=64 hq=4 hkv=2 d=32 dtype=f32 causal"
DECODE = "decode b=2 sq=1 skv=300 hq=4 hkv=2 d=32 dtype=bf16 page=4 placement=random"
KEYS = ["case", "kernel", "threads", "median_ms", "p10_ms", "p90_ms", "gflops", "gbps", "intensity", "roof",
        "roof_value", "roof_percent", "max_error", "workspace_bytes", "row", "figure", "value", "goal", "goal_met",
        "read_ratio_2_over_1", "ratio_to",
        "counters", "profile", "best_peer"]
PHASES = ["pack", "qk", "softmax", "pv", "merge", "rest"]
FAST = ("--repeat", "3")


class Bench(tool.ToolTest):
    def measure(self, *args, **environment):
        return self.good_json("bench", *args, *FAST, "--json", "-", **environment)["results"]

    def rows(self, text, *args):
        """The results of the rows of the suite `cpu` whose name or case contains `text`, by name."""
        return {r["row"]: r for r in self.measure("--suite", "cpu", "--rows", text, *args)}

    def test_json_says_where_and_with_what_it_was_measured(self):
        run = self.good_json("bench", PREFILL, *FAST, "--json", "-")
        self.assertEqual(list(run), ["version", "commit", "compiler", "machine", "results"])
        self.assertRegex(run["version"], r"^\d+\.\d+\.\d+$")
        self.assertRegex(run["commit"], r"^([0-9a-f]{12,40}(-dirty)?|unknown)$")
        self.assertRegex(run["compiler"], r"^(g\+\+|clang) \d+\.\d+\.\d+$")
        self.assertEqual(list(run["machine"]), ["cpu", "best_isa", "clock_ghz", "threads", "l1_bytes", "l2_bytes",
                                                "l3_bytes", "read_ratio_2_over_1"])
        self.assertGreater(run["machine"]["clock_ghz"], 0.1)
        self.assertIsNone(run["machine"]["read_ratio_2_over_1"])

    def test_json_is_one_object_a_case_with_exactly_the_promised_keys(self):
        results = self.measure(PREFILL, DECODE, "--threads", "2")
        self.assertEqual([r["case"] for r in results], [PREFILL, DECODE])
        for result in results:
            self.assertEqual(list(result), KEYS)
            self.assertEqual(result["threads"], 2)
            self.assertLessEqual(result["p10_ms"], result["median_ms"])
            self.assertLessEqual(result["median_ms"], result["p90_ms"])
            self.assertGreater(result["roof_value"], 0)
            self.assertAlmostEqual(result["intensity"] * result["gbps"] / result["gflops"], 1)
            self.assertLess(result["max_error"], 0.05)

    def test_flops_count_visible_pairs_only(self):
        causal, = self.measure(PREFILL)
        pairs = 64 * 65 / 2 * 4
        self.assertAlmostEqual(causal["gflops"] * causal["median_ms"] * 1e6, pairs * 2 * 64, delta=1)

    def test_backward_counts_five_products_and_is_held_against_arithmetic(self):
        backward, = self.measure("backward b=1 sq=64 skv=64 hq=4 hkv=2 d=32 dv=16 dtype=f32 causal", "--threads", "1")
        pairs = 64 * 65 / 2 * 4
        self.assertAlmostEqual(backward["gflops"] * backward["median_ms"] * 1e6, pairs * 2 * (3 * 32 + 2 * 16), delta=1)
        self.assertEqual(backward["roof"], "fma_f32")
        self.assertLess(backward["max_error"], 1e-3)

    def test_bytes_count_each_visible_key_and_value_once(self):
        whole, window = self.measure("decode b=1 sq=1 skv=512 hq=4 hkv=2 d=32",
                                     "decode b=1 sq=1 skv=512 hq=4 hkv=2 d=32 window=99,0")
        for result, keys in ((whole, 512), (window, 100)):
            self.assertAlmostEqual(result["gbps"] * result["median_ms"] * 1e6, keys * 2 * 2 * 32 * 4, delta=1)

    def test_roof_is_of_the_right_kind(self):
        roofs = {r["case"].split("dtype=")[1]: r["roof"] for r in self.measure(
            "prefill sq=64 skv=64 d=32 dtype=f32", "prefill sq=64 skv=64 d=32 dtype=f16", "decode skv=99 d=32 dtype=f32",
            "decode skv=99 d=32 dtype=bf16 page=4", "decode skv=99 d=32 dtype=bf16 page=4 placement=random")}
        self.assertEqual(roofs, {"f32": "read", "f16": "fma_f32", "bf16 page=4": "read",
                                 "bf16 page=4 placement=random": "read_pages"})

    def test_bf16_prefill_is_held_against_dot_products_only_where_the_kernel_has_them(self):
        best = self.good_json("info", "--json")["best_isa"]
        case = "prefill sq=64 skv=64 d=32 dtype=bf16"
        self.assertEqual(self.measure(case)[0]["roof"], "dot_bf16" if best == "avx512_bf16" else "fma_f32")
        self.assertEqual(self.measure(case, REGARD_CPU_ISA="scalar")[0]["roof"], "fma_f32")

    def test_kernel_can_be_chosen(self):
        self.assertEqual(self.measure(DECODE, "--kernel", "reference")[0]["kernel"], "reference")

    def test_empty_cases_take_no_flops(self):
        for result in self.measure("decode b=2 sq=1 skv=0 hq=2 hkv=1 d=8", "prefill b=0 sq=4 skv=4 hq=2 hkv=1 d=8"):
            self.assertEqual((result["gflops"], result["gbps"], result["max_error"]), (0, 0, 0))

    def test_table_goes_to_stderr_beside_json_on_stdout(self):
        done = self.good("bench", PREFILL, *FAST, "--json", "-")
        self.assertIn("median ms", done.stderr)
        json.loads(done.stdout)

    def test_json_file_and_report_are_written_and_the_report_needs_nothing_else(self):
        with tempfile.TemporaryDirectory() as folder:
            results, report = os.path.join(folder, "r.json"), os.path.join(folder, "r.html")
            self.good("bench", "--quick", *FAST, "--json", results, "--report", report)
            with open(results, encoding="utf-8") as file:
                self.assertEqual(len(json.load(file)["results"]), 5)
            with open(report, encoding="utf-8") as file:
                html = file.read()
        self.assertEqual(html.count("<svg "), 4)
        self.assertEqual(html.count("<svg "), html.count("</svg>"))
        for outside in ("http://", "https://", "<script", "<link", "src="):
            self.assertNotIn(outside, html)
        self.assertIn("prefers-color-scheme: dark", html)

    def test_a_row_of_the_roof_has_its_percentage_as_figure_and_a_goal_by_threads(self):
        for threads, goal in (("1", 76), ("2", 0.95 * 76)):
            row = self.rows("prefill d=128 s=512 f32", "--threads", threads)["prefill d=128 s=512 f32 causal"]
            self.assertEqual(row["figure"], "percent_of_roof")
            self.assertEqual(row["value"], row["roof_percent"])
            self.assertAlmostEqual(row["goal"], goal)
            self.assertEqual(row["goal_met"], row["value"] >= row["goal"])
            self.assertIsNone(row["ratio_to"])

    def test_decode_on_two_threads_says_which_goal_the_memory_set(self):
        row = self.rows("decode 32k b=1 bf16", "--threads", "2")["decode 32k b=1 bf16"]
        self.assertEqual(row["goal"], 80 if row["read_ratio_2_over_1"] > 1.6 else 88)

    def test_a_ratio_row_names_its_other_case_and_stays_near_one_for_twins(self):
        row, = self.rows("decode 32k bf16 against invariance=none", "--threads", "1").values()
        self.assertEqual(row["ratio_to"], row["case"] + " invariance=none")
        self.assertEqual(row["figure"], "time_ratio")
        self.assertGreater(row["value"], 0.3)
        self.assertLess(row["value"], 3)

    def test_the_overhead_of_a_tiny_decode_is_less_than_its_launch(self):
        row = self.rows("launch of a tiny decode", "--threads", "1")["launch of a tiny decode f32 beyond its kernel"]
        self.assertEqual((row["figure"], row["goal"]), ("launch_overhead_us", 2))
        self.assertLess(row["value"], row["median_ms"] * 1e3)

    def test_a_missed_goal_fails_only_where_goals_are_required(self):
        words = ("bench", "--suite", "cpu", "--rows", "prefill d=128 s=512 f32", "--threads", "1", *FAST)
        scalar = {"REGARD_CPU_ISA": "scalar"}
        for with_goals, status in ((words, 0), ((*words, "--require-goals"), 1)):
            done = tool.run(*with_goals, **scalar)
            missed = "MISSED" in done.stdout
            self.assertEqual(done.returncode, status if missed else 0, done.stdout)

    def test_counters_are_printed_or_a_line_says_why_not(self):
        done = self.good("bench", PREFILL, *FAST, "--counters", "--json", "-")
        counters = json.loads(done.stdout)["results"][0]["counters"]
        if counters is None:
            self.assertIn("counters: none; perf_event_open: ", done.stderr)
        else:
            self.assertGreater(counters["cycles"], 0)
            self.assertIn("L2 misses", done.stderr)

    def test_a_profile_names_the_phases_and_shares_a_launch_among_them(self):
        done = self.good("bench", PREFILL, DECODE, *FAST, "--threads", "2", "--profile", "--json", "-")
        prefill, decode = json.loads(done.stdout)["results"]
        for result in (prefill, decode):
            phases = result["profile"]["phases"]
            self.assertEqual(list(phases), PHASES)
            self.assertGreater(result["profile"]["launches"], 0)
            self.assertAlmostEqual(sum(p["percent"] for p in phases.values()), 100, places=6)
            self.assertAlmostEqual(sum(p["ms"] for p in phases.values()), result["median_ms"], places=9)
            for phase in ("qk", "softmax", "pv", "rest"):
                self.assertGreater(phases[phase]["percent"], 0, phase)
            self.assertIn(f"profile of {result['case']}\n{result['kernel']}, ", done.stderr)
        self.assertGreater(prefill["profile"]["phases"]["pack"]["percent"], 0)
        self.assertEqual(decode["profile"]["phases"]["pack"]["percent"], 0)  # K is transposed inside qk
        for phase in PHASES:
            self.assertEqual(len(re.findall(rf"^{phase} +[0-9.]+ % +[0-9.]+", done.stderr, re.M)), 2, done.stderr)

    def test_a_profile_of_a_backward_pass_names_its_products(self):
        done = self.good("bench", "backward b=1 sq=64 skv=64 hq=4 hkv=1 d=32 causal", *FAST, "--threads", "2",
                         "--profile", "--json", "-")
        phases = json.loads(done.stdout)["results"][0]["profile"]["phases"]
        self.assertEqual(list(phases), ["pack", "qk", "dp", "dqkv", "merge", "rest"])
        for phase in ("pack", "qk", "dp", "dqkv"):
            self.assertGreater(phases[phase]["percent"], 0, phase)

    def test_bars_of_a_profile_are_as_long_as_its_shares(self):
        text = self.good("bench", PREFILL, *FAST, "--profile").stdout
        bars = re.findall(rf"^(?:{'|'.join(PHASES)}) +([0-9.]+) % +[0-9.]+(?:  (█+))?$", text, re.M)
        self.assertEqual(len(bars), len(PHASES), text)
        for percent, bar in bars:
            self.assertAlmostEqual(len(bar), float(percent) / 100 * 40, delta=0.6)

    def test_merging_splits_shows_in_the_profile_of_a_long_decode(self):
        short, long = self.measure(*(f"decode b=1 sq=1 skv={n} hq=4 hkv=2 d=32" for n in (1024, 8192)), "--profile",
                                   "--threads", "1")
        self.assertGreater(long["profile"]["phases"]["merge"]["ms"], short["profile"]["phases"]["merge"]["ms"])

    def test_where_there_is_no_profile_a_line_says_why(self):
        for words, why in (((DECODE, "--kernel", "reference"), "reference takes no time stamps; "),
                           (("decode b=0 sq=1 skv=9 hq=2 hkv=1 d=8",), "no time stamps: the case is empty, ")):
            done = self.good("bench", *words, *FAST, "--profile", "--json", "-")
            self.assertIsNone(json.loads(done.stdout)["results"][0]["profile"])
            self.assertIn(f"profile of {words[0]}: none; {why}", done.stderr)

    def test_without_the_option_nothing_is_profiled(self):
        done = self.good("bench", PREFILL, *FAST, "--json", "-")
        self.assertIsNone(json.loads(done.stdout)["results"][0]["profile"])
        self.assertNotIn("profile", done.stderr)

    def test_interrupt_prints_what_there_is(self):
        process = subprocess.Popen([tool.REGARD, "bench", PREFILL, "prefill sq=256 skv=256 hq=4 hkv=1 d=64", "--repeat", "1000000"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn(PREFILL, out)
        self.assertIn("interrupted after 1 of 2 cases", err)


tool.main()
