"""bench/plot_rooflines draws every case and the roofs where they belong, and refuses what it cannot draw."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PLOT = os.path.join(ROOT, "bench", "plot_rooflines")
SVG = "{http://www.w3.org/2000/svg}"


def case(row, intensity, gflops, roof, roof_value, figure="percent_of_roof", **more):
    reached = gflops / intensity if roof.startswith("read") else gflops
    return {"case": "prefill sq=" + row, "kernel": "cpu.avx512.prefill.f32", "threads": 1, "gflops": gflops,
            "gbps": gflops / intensity, "intensity": intensity, "roof": roof, "roof_value": roof_value,
            "roof_percent": 100 * reached / roof_value, "row": row, "figure": figure, **more}


CASES = [
    case("prefill f32", 8192, 100, "fma_f32", 110),
    case("prefill f32 <again>", 8192, 99, "fma_f32", 120),
    case("prefill bf16", 16384, 200, "dot_bf16", 240),
    case("decode f32", 2, 50, "read", 30),
    case("decode pages", 4, 60, "read_pages", 25),
    case("pages against dense", 4, 70, "read", 30, figure="time_ratio"),
    {"case": "decode sq=empty", "kernel": "reference", "threads": 1, "gflops": 0, "gbps": 0, "intensity": 0,
     "roof": "read", "roof_value": 30, "roof_percent": 0, "row": None, "figure": None},
]
RUN = {"version": "0.1.0", "commit": "0123456789abcdef", "machine": {"cpu": "Made Up CPU", "clock_ghz": 3.5},
       "results": CASES}


class PlotRooflines(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.results = os.path.join(self.folder.name, "results.json")
        self.svg = os.path.join(self.folder.name, "roofline.svg")

    def tearDown(self):
        self.folder.cleanup()

    def plot(self, run):
        with open(self.results, "w", encoding="utf-8") as file:
            json.dump(run, file)
        return self.call()

    def call(self):
        return subprocess.run([sys.executable, PLOT, self.results, self.svg], capture_output=True, text=True,
                              check=False)

    def drawn(self, run):
        done = self.plot(run)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return xml.etree.ElementTree.parse(self.svg).getroot()

    def refused(self, run):
        done = self.plot(run)
        self.assertEqual(done.returncode, 2)
        self.assertFalse(os.path.exists(self.svg))
        self.assertEqual(len(done.stderr.splitlines()), 1)
        return done.stderr

    @staticmethod
    def of_class(root, name):
        return [e for e in root.iter() if e.get("class") == name]

    def test_every_case_and_row_in_per_cent_of_a_roof_is_a_numbered_point(self):
        root = self.drawn(RUN)
        points = [p.find(SVG + "title").text for p in self.of_class(root, "point")]
        self.assertEqual([p.split(":")[0] for p in points],
                         ["prefill f32", "prefill f32 <again>", "prefill bf16", "decode f32", "decode pages"])
        self.assertIn("83.3 % of dot_bf16, 200.0 GFLOP/s", points[2])
        self.assertEqual([n.text for n in self.of_class(root, "number")], ["1", "2", "3", "4", "5"])
        self.assertEqual([k.text.split(":")[0] for k in self.of_class(root, "key")], [p.split(":")[0] for p in points])

    def test_the_title_says_machine_threads_and_commit(self):
        words = [e.text for e in self.drawn(RUN).iter(SVG + "text")]
        self.assertIn("Roofline: Made Up CPU, 3.50 GHz, 1 thread, commit 0123456789ab", words)

    def test_points_stand_below_their_roof_by_as_much_as_they_miss_it(self):
        root = self.drawn(RUN)
        names = [p.find(SVG + "title").text.split(":")[0] for p in self.of_class(root, "point")]
        at = dict(zip(names, ((float(p.get("cx")), float(p.get("cy"))) for p in self.of_class(root, "point"))))
        roofs = {r.get("data-roof"): r for r in self.of_class(root, "roof")}
        self.assertEqual(set(roofs), {"fma_f32", "dot_bf16", "read"})
        fma, dot = float(roofs["fma_f32"].get("y1")), float(roofs["dot_bf16"].get("y1"))
        # Logarithmic: 240 over 115 (the median) GFLOP/s is a step of log(240 / 115) upwards, 240 over 200 of log(1.2).
        unit = (fma - dot) / 0.7357
        self.assertAlmostEqual((at["prefill bf16"][1] - dot) / unit, 0.1823, places=2)
        self.assertAlmostEqual((at["prefill f32"][1] - fma) / unit, 0.1398, places=2)
        self.assertAlmostEqual((at["prefill bf16"][0] - at["prefill f32"][0]) * 12,
                               at["prefill f32"][0] - at["decode f32"][0], delta=2)
        # The line of reading passes 60 GFLOP/s at 2 flops a byte.
        read = {k: float(roofs["read"].get(k)) for k in ("x1", "y1", "x2", "y2")}
        share = (at["decode f32"][0] - read["x1"]) / (read["x2"] - read["x1"])
        height = read["y1"] + share * (read["y2"] - read["y1"])
        self.assertAlmostEqual((at["decode f32"][1] - height) / unit, 0.1823, places=2)

    def test_numbers_of_crowded_points_do_not_cover_each_other(self):
        crowd = [case(f"prefill {n}", 8192, 100 + n / 10, "fma_f32", 118) for n in range(12)]
        root = self.drawn({"results": crowd})
        numbers = [(float(n.get("x")), float(n.get("y"))) for n in self.of_class(root, "number")]
        for i, a in enumerate(numbers):
            for b in numbers[:i]:
                self.assertTrue(abs(a[0] - b[0]) > 12 or abs(a[1] - b[1]) > 9, (a, b))

    def test_a_run_of_plain_cases_is_drawn_under_their_own_text(self):
        plain = [case("64", 8192, 100, "fma_f32", 110, figure=None) | {"row": None}]
        self.assertEqual(self.of_class(self.drawn(plain), "key")[0].text, "prefill sq=64: 90.9 % of fma_f32")

    def test_what_cannot_be_drawn_is_refused_with_field_value_and_expectation(self):
        self.assertIn("results: no list of cases; expected", self.refused({"version": "0.1.0"}))
        self.assertIn("expected at least one", self.refused({"results": CASES[5:]}))
        self.assertIn("roof: 'moon' in case 'prefill sq=x'; expected one of fma_f32",
                      self.refused({"results": [case("x", 2, 50, "moon", 30)]}))
        self.assertIn("gflops: 'fast' in case 'prefill sq=x'; expected a finite number",
                      self.refused({"results": [case("x", 2, 50, "read", 30) | {"gflops": "fast"}]}))
        with open(self.results, "w", encoding="utf-8") as file:
            file.write("{")
        done = self.call()
        self.assertEqual(done.returncode, 2)
        self.assertIn("expected JSON", done.stderr)

    def test_the_picture_of_the_documentation_is_what_its_command_draws(self):
        with open(os.path.join(ROOT, "docs", "performance.md"), encoding="utf-8") as file:
            results, picture = re.search(r"^ *bench/plot_rooflines (\S+) (\S+)$", file.read(), re.M).groups()
        self.assertEqual(picture, "docs/roofline.svg")
        subprocess.run([sys.executable, PLOT, os.path.join(ROOT, results), self.svg], check=True)
        with open(self.svg, encoding="utf-8") as new, open(os.path.join(ROOT, picture), encoding="utf-8") as old:
            self.assertEqual(new.read(), old.read(), "run the command of docs/performance.md again")


if __name__ == "__main__":
    unittest.main()
