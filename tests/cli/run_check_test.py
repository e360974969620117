"""`regard run` and `regard check` as a person calls them: exit codes, lines, files. Only the standard library.

Usage: run_check_test.py REGARD MINILM_FOLDER
"""
import ast
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

REGARD = sys.argv.pop(1)
MINILM = sys.argv.pop(1)


def regard(*args, **env):
    return subprocess.run([REGARD, *args], capture_output=True, text=True, env={**os.environ, **env}, timeout=300)


def minilm(name):
    return os.path.join(MINILM, name + ".npy")


def read_npy(path):
    """(descr, shape, bytes of the elements)"""
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<H", data[8:10])[0]
    header = ast.literal_eval(data[10 : 10 + length].decode())
    return header["descr"], header["shape"], data[10 + length :]


def write_npy(path, descr, shape, elements):
    header = repr({"descr": descr, "fortran_order": False, "shape": tuple(shape)}) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + elements)


def floats(path):
    _, _, data = read_npy(path)
    return struct.unpack(f"<{len(data) // 4}f", data)


def to_bf16(values):
    """Round to nearest, ties to even."""
    out = []
    for bits in struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values)):
        out.append((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return struct.pack(f"<{len(out)}H", *out)


def from_bf16(data):
    bits = [x << 16 for x in struct.unpack(f"<{len(data) // 2}H", data)]
    return struct.unpack(f"<{len(bits)}f", struct.pack(f"<{len(bits)}I", *bits))


class Base(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def assert_bad_input(self, result, *parts):
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("regard: "), result.stderr)
        for part in parts:
            self.assertIn(part, lines[0])


class RunFiles(Base):
    tensors = ["--q", minilm("q"), "--k", minilm("k"), "--v", minilm("v"), "--lens", minilm("lens")]

    def test_a_real_layer_matches_its_own_output(self):
        result = regard("run", *self.tensors, "--expect", minilm("out"))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        for word in ("kernel ", "checksum ", "error ", " ok", "time "):
            self.assertIn(word, result.stdout)

    def test_without_expect_the_reference_judges(self):
        result = regard("run", *self.tensors)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("against the fp64 reference", result.stdout)

    def test_a_wrong_expectation_misses_and_says_where(self):
        descr, shape, data = read_npy(minilm("out"))
        values = list(struct.unpack(f"<{len(data) // 4}f", data))
        values[5] += 1e-3
        write_npy(self.path("wrong.npy"), descr, shape, struct.pack(f"<{len(values)}f", *values))
        result = regard("run", *self.tensors, "--expect", self.path("wrong.npy"))
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("MISS", result.stdout)
        self.assertIn("element 5", result.stdout)

    def test_forgetting_the_lengths_misses(self):
        result = regard("run", *self.tensors[:-2], "--expect", minilm("out"))
        self.assertEqual(result.returncode, 1)

    def test_out_and_lse_are_written(self):
        result = regard("run", *self.tensors, "--out", self.path("out.npy"), "--lse-out", self.path("lse.npy"))
        self.assertEqual(result.returncode, 0, result.stderr)
        descr, shape, _ = read_npy(self.path("out.npy"))
        self.assertEqual((descr, shape), ("<f4", (3, 64, 12, 32)))
        worst = max(abs(a - b) for a, b in zip(floats(self.path("out.npy")), floats(minilm("out"))))
        self.assertLess(worst, 1e-5)
        descr, shape, _ = read_npy(self.path("lse.npy"))
        self.assertEqual((descr, shape), ("<f4", (3, 12, 64)))

    def test_narrow_types_go_in_and_come_out(self):
        for kind, descr in (("bf16", "<V2"), ("f16", "<f2")):
            for name in "qkv":
                _, shape, data = read_npy(minilm(name))
                values = struct.unpack(f"<{len(data) // 4}f", data)
                narrow = to_bf16(values) if kind == "bf16" else struct.pack(f"<{len(values)}e", *values)
                write_npy(self.path(name + ".npy"), descr, shape, narrow)
            files = ["--q", self.path("q.npy"), "--k", self.path("k.npy"), "--v", self.path("v.npy")]
            result = regard("run", *files, "--lens", minilm("lens"), "--out", self.path("out.npy"))
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertIn("dtype=" + kind, result.stdout)
            found, _, data = read_npy(self.path("out.npy"))
            self.assertEqual(found, descr)
            out = from_bf16(data) if kind == "bf16" else struct.unpack(f"<{len(data) // 2}e", data)
            worst = max(abs(a - b) for a, b in zip(out, floats(minilm("out"))))
            self.assertLess(worst, 0.05)
            self.assertGreater(worst, 0)
            result = regard("run", *files, "--lens", minilm("lens"), "--expect", self.path("out.npy"))
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_pages_in_any_order_give_the_bits_of_dense_keys(self):
        page, heads, dim, tokens = 8, 12, 32, 64
        row = heads * dim * 4
        pages = 3 * tokens // page
        order = [(7 * n + 3) % pages for n in range(pages)]  # where page n of the dense tensor goes
        for name in "kv":
            _, _, data = read_npy(minilm(name))
            pool = [b""] * pages
            for n in range(pages):
                pool[order[n]] = data[n * page * row : (n + 1) * page * row]
            write_npy(self.path(name + ".npy"), "<f4", (pages, page, heads, dim), b"".join(pool))
        write_npy(self.path("table.npy"), "<i4", (3, tokens // page), struct.pack(f"<{pages}i", *order))
        paged = ["--q", minilm("q"), "--k", self.path("k.npy"), "--v", self.path("v.npy"), "--lens", minilm("lens"),
                 "--qlens", minilm("lens"), "--block-table", self.path("table.npy"), "--expect", minilm("out")]
        result = regard("run", *paged, "--out", self.path("paged.npy"))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("page=8", result.stdout)
        regard("run", *self.tensors, "--out", self.path("dense.npy"))
        self.assertEqual(read_npy(self.path("paged.npy")), read_npy(self.path("dense.npy")))

    def test_options_change_the_call(self):
        result = regard("run", *self.tensors, "--options", "causal window=3,0 softcap=20")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("causal", result.stdout)
        self.assertEqual(regard("run", *self.tensors, "--options", "causal", "--expect", minilm("out")).returncode, 1)

    def test_bad_files_are_one_clear_line(self):
        with open(self.path("bad.npy"), "wb") as file:
            file.write(b"\x93NUMPY\x01\x00\xff\xff{'descr'")
        self.assert_bad_input(regard("run", "--q", self.path("none.npy"), *self.tensors[2:]), "--q", "none.npy")
        self.assert_bad_input(regard("run", "--q", self.path("bad.npy"), *self.tensors[2:]), "--q", "bad.npy")
        self.assert_bad_input(regard("run", "--q", minilm("q")), "--k")
        self.assert_bad_input(regard("run", *self.tensors[:-1], minilm("q")))
        self.assert_bad_input(regard("run", *self.tensors, "--expect", minilm("lens")), "--expect")
        self.assert_bad_input(regard("run", *self.tensors, "--out", self.path("no/such/folder.npy")), "--out")

    def test_lengths_beyond_the_tensor_are_refused(self):
        write_npy(self.path("lens.npy"), "<i8", (3,), struct.pack("<3q", 4, 65, 9))
        self.assert_bad_input(regard("run", *self.tensors[:-1], self.path("lens.npy")), "65")

    def test_shapes_have_no_place_among_options(self):
        self.assert_bad_input(regard("run", *self.tensors, "--options", "sq=4"), "--options")
        self.assert_bad_input(regard("run", *self.tensors, "--options", "cusal"), "causal")


class RunCases(Base):
    case = "prefill b=2 sq=40 skv=70 hq=4 hkv=2 d=64 dtype=bf16 causal page=16 lse"

    def checksum(self, *args):
        result = regard("run", *args)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout.split("checksum ")[1].split()[0]

    def test_bits_do_not_depend_on_threads_or_on_the_run(self):
        self.assertEqual(self.checksum(self.case, "--threads", "1"), self.checksum(self.case, "--threads", "2"))

    def test_loose_words_make_a_case_too(self):
        self.assertEqual(self.checksum(*self.case.split()), self.checksum(self.case))

    def test_another_seed_gives_other_numbers(self):
        self.assertNotEqual(self.checksum(self.case), self.checksum(self.case + " seed=2"))

    def test_a_forced_kernel_runs(self):
        result = regard("run", self.case, "--kernel", "reference")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("kernel    reference", result.stdout)

    def test_an_unknown_kernel_is_an_error_that_suggests_one(self):
        self.assert_bad_input(regard("run", self.case, "--kernel", "referense"), "--kernel", "reference")

    def test_bad_cases_are_one_clear_line(self):
        self.assert_bad_input(regard("run", "prefill sq=10 hq=7 hkv=2"), "hq", "hq=6 or hq=8")
        self.assert_bad_input(regard("run", "prefill cusal"), "causal")
        self.assert_bad_input(regard("run"), "--q")
        self.assert_bad_input(regard("run", self.case, "--q", minilm("q")))
        self.assert_bad_input(regard("run", self.case, self.case))
        self.assert_bad_input(regard("run", "decode sq=1 skv=900000000 hq=64 hkv=64 d=512"), "MiB")


class Check(Base):
    cases = ["prefill sq=30 skv=50 hq=4 hkv=2 d=40 dtype=f16 causal lse", "decode lens=90,3 sq=1 hq=4 hkv=1 d=64 dtype=f32"]

    def test_named_cases_are_checked(self):
        result = regard("check", *self.cases)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("2 cases", result.stdout)
        self.assertIn("all within the accuracy rule", result.stdout)

    def test_kernels_are_compared_with_each_other(self):
        result = regard("check", *self.cases, "--cross")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_one_kernel_alone(self):
        result = regard("check", *self.cases, "--kernel", "reference")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("2 runs", result.stdout)

    def test_a_named_case_that_the_kernel_cannot_do_is_an_error_with_the_reason(self):
        self.assert_bad_input(regard("check", "backward sq=4 skv=4 d=8 dtype=f32", "--kernel", "cpu.scalar.prefill"), "backward")

    def test_bad_input_is_one_clear_line(self):
        self.assert_bad_input(regard("check", "--quick", "--all"))
        self.assert_bad_input(regard("check", "prefill sq=ten"), "sq")
        self.assert_bad_input(regard("check", self.cases[0], "--kernel", "nonsense.of.a.name"), "--kernel")

    def test_ctrl_c_stops_and_prints_what_is_done(self):
        process = subprocess.Popen([REGARD, "check", "--all", "--threads", "1"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, stdout + stderr)
        self.assertIn("interrupted", stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
