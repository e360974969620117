"""`regard bench --peers` with made-up peers, which need no library, and with the real ones where they are installed."""
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import tool

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REAL = os.path.join(ROOT, "build", "peers-venv", "bin", "python")
NAMES = ["torch-sdpa", "ort-gqa", "ort-mha", "onednn-graph"]
ONE_KEY = "decode b=2 sq=1 skv=1 hq=4 hkv=2 d=8 dtype=f32"  # with one key the output is its value
FAST = ("--threads", "1", "--repeat", "3")

# In the place of the interpreter: torch-sdpa answers rightly, ort-gqa dies, ort-mha is wrong, onednn-graph declines.
MADE_UP = """#!{python}
import json, mmap, os, struct, sys, time
name = sys.argv[sys.argv.index("--peer") + 1]
memory = int(sys.argv[sys.argv.index("--memory") + 1])
with open({log!r} + "." + name, "w") as file:
    file.write(str(os.getpid()))
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "case":
        case = json.loads(rest)
        if name == "ort-gqa":
            os._exit(9)
        if name == "onednn-graph":
            print("cannot since it is made up", flush=True)
            continue
        print('ready {{"version": "made up 1.0", "how": "by hand"}}', flush=True)
    elif word == "run":
        if {hang}:
            time.sleep(100)
        print("took %.6f" % (int(rest) * 0.002), flush=True)
    elif word == "output":
        shared = mmap.mmap(memory, case["bytes"])
        row, group = 4 * case["dv"], case["hq"] // case["hkv"]
        if case["backward"]:  # dq and dk are 0, dv is the sum of the group's dout
            shared[case["out"]:] = bytes(case["bytes"] - case["out"])
            for n in range(case["b"] * case["hkv"] if name == "torch-sdpa" else 0):
                rows = [struct.unpack_from("%df" % case["dv"], shared, case["dout"] + (n * group + g) * row)
                        for g in range(group)]
                struct.pack_into("%df" % case["dv"], shared, case["results"][2] + n * row, *map(sum, zip(*rows)))
            print("done", flush=True)
            continue
        for b in range(case["b"]):
            for h in range(case["hq"]):
                at = case["v"] + (b * case["hkv"] + h // group) * row
                to = case["out"] + (b * case["hq"] + h) * row
                shared[to:to + row] = shared[at:at + row] if name == "torch-sdpa" else bytes(row)
        print("done", flush=True)
"""


class Peers(tool.ToolTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.log = os.path.join(self.folder.name, "id")

    def tearDown(self):
        self.folder.cleanup()

    def made_up(self, hang=False):
        path = os.path.join(self.folder.name, "python")
        with open(path, "w", encoding="utf-8") as file:
            file.write(MADE_UP.format(python=sys.executable, log=self.log, hang=hang))
        os.chmod(path, stat.S_IRWXU)
        return path

    def compare(self, python, *cases):
        results = self.good_json("bench", *cases, *FAST, "--peers", python, "--json", "-")["results"]
        for result in results:
            self.assertEqual([p["name"] for p in result["peers"]], NAMES)
            self.assertGreater(result["regard_beside_peers_ms"], 0)
        return [{p["name"]: p for p in r["peers"]} for r in results]

    def test_every_peer_has_a_figure_or_a_reason(self):
        peers, = self.compare(self.made_up(), ONE_KEY)
        self.assertEqual(peers["torch-sdpa"], {"name": "torch-sdpa", "version": "made up 1.0", "how": "by hand",
                                               "median_ms": 2.0, "max_error": 0.0, "cannot": None})
        self.assertEqual(peers["ort-gqa"]["cannot"], "its process ended with status 9")
        self.assertIn("its output is wrong", peers["ort-mha"]["cannot"])
        self.assertEqual(peers["onednn-graph"]["cannot"], "since it is made up")
        for name in NAMES[1:]:
            self.assertIsNone(peers[name]["median_ms"])

    def test_paged_keys_reach_the_peers_as_their_dense_twin(self):
        peers, = self.compare(self.made_up(), ONE_KEY + " page=1 placement=random")
        self.assertEqual(peers["torch-sdpa"]["max_error"], 0)

    def test_gradients_are_compared_all_three(self):
        peers, = self.compare(self.made_up(), ONE_KEY.replace("decode", "backward"))
        self.assertIsNone(peers["torch-sdpa"]["cannot"])
        self.assertLess(peers["torch-sdpa"]["max_error"], 1e-6)
        self.assertIn("its output is wrong", peers["ort-mha"]["cannot"])  # dv alone

    def test_peers_are_not_asked_for_options_that_they_lack(self):
        for words, reason in (("sink", "peers are not asked for sinks"), ("alibi", "peers are not asked for ALiBi"),
                              ("kv=f8e4m3", "peers take one type: f32, f16 or bf16"),
                              ("lens=uniform(1,9) skv=9", "peers take sequences of one length")):
            case = ONE_KEY.replace(" skv=1", "") + " " + words if "skv" in words else ONE_KEY + " " + words
            for peer in self.compare(self.made_up(), case)[0].values():
                self.assertEqual(peer["cannot"], reason)

    def test_table_says_who_is_best_and_why_others_are_not_in_it(self):
        text = self.good("bench", ONE_KEY, *FAST, "--peers", self.made_up()).stdout
        header = next(line for line in text.splitlines() if line.startswith("regard ms"))
        self.assertEqual(header.split()[2:6], NAMES)
        self.assertIn("x as fast", text)
        self.assertIn("onednn-graph cannot: since it is made up", text)

    def test_without_the_option_there_are_no_peers(self):
        result, = self.good_json("bench", ONE_KEY, *FAST, "--json", "-")["results"]
        self.assertNotIn("peers", result)

    def test_missing_interpreter_is_refused_before_anything_runs(self):
        line = self.refused("bench", ONE_KEY, "--peers", self.folder.name + "/none")
        self.assertIn("--peers: ", line)
        self.assertIn("bench/peers/setup", line)

    def test_interpreter_without_the_libraries_gives_reasons(self):
        bare = os.path.join(self.folder.name, "bare")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
        peers, = self.compare(os.path.join(bare, "bin", "python"), ONE_KEY)
        for peer in peers.values():
            self.assertIn("No module named", peer["cannot"])

    def wait_for(self, what):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            value = what()
            if value:
                return value
            time.sleep(0.05)
        self.fail("waited for nothing")

    def start_hanging(self):
        process = subprocess.Popen([tool.REGARD, "bench", ONE_KEY, *FAST, "--peers", self.made_up(hang=True)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def child():
            if not os.path.exists(self.log + ".torch-sdpa"):
                return 0
            with open(self.log + ".torch-sdpa", encoding="ascii") as file:
                return int(file.read() or 0)

        return process, self.wait_for(child)

    @staticmethod
    def gone(child):
        try:
            with open(f"/proc/{child}/stat", encoding="ascii") as file:
                return file.read().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    def test_interrupt_ends_a_hanging_peer_and_prints_what_there_is(self):
        process, child = self.start_hanging()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn(ONE_KEY, out)
        self.assertTrue(self.gone(child))

    def test_peers_end_with_regard_however_it_ends(self):
        process, child = self.start_hanging()
        process.kill()
        process.communicate(timeout=60)
        self.wait_for(lambda: self.gone(child))

    @unittest.skipUnless(os.path.exists(REAL), "bench/peers/setup has not made build/peers-venv")
    def test_real_peers_agree_with_regard(self):
        shape = "hq=8 hkv=2 d=64 dtype="
        cases = [f"{phase} {shape}{dtype}{words}" for dtype in ("f32", "f16", "bf16") for phase, words in (
            ("prefill b=2 sq=100 skv=100", ""), ("prefill b=2 sq=100 skv=100", " causal"),
            ("prefill b=1 sq=40 skv=100", " causal"), ("prefill b=2 sq=100 skv=100", " causal window=20,0"),
            ("prefill b=1 sq=60 skv=60", " scale=0.2"), ("decode b=2 sq=1 skv=300", " page=16 placement=random"),
            ("decode b=1 sq=4 skv=300", " causal"))]
        declines = {"torch-sdpa": (), "ort-gqa": ("bf16",), "ort-mha": ("bf16",), "onednn-graph": ("f16",)}
        for case, peers in zip(cases, self.compare("auto", *cases)):
            dtype = case.split("dtype=")[1].split()[0]
            for name, peer in peers.items():
                if dtype in declines[name]:
                    self.assertTrue(peer["cannot"], (case, name))
                    continue
                self.assertIsNone(peer["cannot"], (case, name))
                self.assertGreater(peer["median_ms"], 0, (case, name))
                self.assertTrue(peer["version"] and peer["how"], (case, name))

    @unittest.skipUnless(os.path.exists(REAL), "bench/peers/setup has not made build/peers-venv")
    def test_real_gradients_agree_with_regard(self):
        cases = [f"backward {shape} hq=4 hkv=2 d=32 dtype={dtype}{words}" for dtype in ("f32", "f16", "bf16")
                 for shape, words in (("b=2 sq=33 skv=65", ""), ("b=1 sq=65 skv=65", " causal"),
                                      ("b=1 sq=40 skv=65", " causal window=10,0 seed=2"))]
        for case, peers in zip(cases, self.compare("auto", *cases)):
            for name, peer in peers.items():
                if name == "torch-sdpa":
                    self.assertIsNone(peer["cannot"], case)
                    self.assertGreater(peer["median_ms"], 0, case)
                else:
                    self.assertIn("no backward pass", peer["cannot"], (case, name))


tool.main()
