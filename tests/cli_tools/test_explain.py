import tool

CASE = "decode b=1 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 page=1 softcap=30"


class Explain(tool.ToolTest):
    def test_says_problem_device_chosen_plan_and_rejected(self):
        text = self.good("explain", CASE, "--no-measure").stdout
        for word in ("problem", "device", "chosen", "plan", "rejected", "reference"):
            self.assertIn(word, text)
        self.assertIn("guess", text)

    def test_measures_bandwidth_unless_told_not_to(self):
        self.assertTrue(self.good_json("explain", CASE, "--json")["device"]["measured"])
        self.assertFalse(self.good_json("explain", CASE, "--json", "--no-measure")["device"]["measured"])

    def test_loose_words_and_a_quoted_line_are_the_same_case(self):
        quoted = self.good_json("explain", CASE, "--json", "--no-measure")
        loose = self.good_json("explain", *CASE.split(), "--json", "--no-measure")
        self.assertEqual(quoted, loose)

    def test_pretended_isa_chooses_that_isas_kernel(self):
        for isa in ("scalar", "avx2", "avx512", "avx512_bf16"):
            chosen = self.good_json("explain", CASE, "--json", "--device-isa", isa)["chosen"]["kernel"]
            if chosen != "reference":  # not an x86 build
                self.assertTrue(chosen.startswith(f"cpu.{isa}."), (isa, chosen))

    def test_a_backward_case_is_explained_with_why_forward_kernels_do_not_run_it(self):
        text = self.good("explain", "backward sq=64 skv=64 hq=4 hkv=2 dtype=bf16 sink dsink dlse grad=f32", "--no-measure").stdout
        for words in ("backward", "dsink", "dlse", "gradients f32", "phase backward, needs a forward phase"):
            self.assertIn(words, text)

    def explained(self, device, case, *flags):
        return self.good_json("explain", case, "--json", "--device", device, *flags)

    def test_a_gpu_that_is_not_here_is_explained_by_its_name(self):
        case = "prefill sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal"
        for device, kernel in (("T4", "cuda.generic.prefill.bf16"), ("a100", "cuda.sm80.prefill.bf16"),
                               ("rtx 4090", "cuda.sm80.prefill.bf16"), ("H100", "cuda.sm80.prefill.bf16")):
            json = self.explained(device, case)
            self.assertEqual(json["chosen"]["kernel"], kernel)
            self.assertTrue(json["device"]["pretended"])
            self.assertEqual(json["device"]["type"], "cuda")
            self.assertTrue(json["plan"]["instances"])
        rejected = {r["kernel"]: r for r in self.explained("T4", case)["rejected"]}
        self.assertIn("before sm_80 there are no bf16 products", rejected["cuda.sm75.prefill.f16"]["remedy"])
        self.assertEqual(rejected["reference"]["reason"], "device cuda, needs cpu memory")

    def test_text_for_a_pretended_gpu_names_the_compiled_kernels(self):
        text = self.good("explain", "decode sq=1 skv=9000 d=64 dtype=f16", "--device", "T4").stdout
        for words in ("T4, sm_75", "pretended", "cuda.sm75.decode.f16", "sm75.decode.f16.d64.dv64", "combine.dv64"):
            self.assertIn(words, text)

    def test_cpu_and_cuda_rows_stand_in_one_list(self):
        rejected = {r["kernel"] for r in self.good_json("explain", CASE, "--json", "--no-measure")["rejected"]}
        self.assertTrue({"cuda.sm80.decode.bf16", "cuda.generic.decode.bf16", "reference"} <= rejected)

    def test_an_unknown_device_is_refused_with_the_known_ones(self):
        line = self.refused("explain", CASE, "--device", "H1000")
        for words in ("--device", "H1000", "cuda:N", "V100", "RTX 4090", "B200"):
            self.assertIn(words, line)
        self.assertIn("cuda:0, cuda:1", self.refused("explain", CASE, "--device", "cuda:first"))
        self.assertIn("--device-isa", self.refused("explain", CASE, "--device", "T4", "--device-isa", "avx2"))

    def test_a_gpu_of_this_machine_that_is_not_there_is_refused_with_the_reason(self):
        line = self.refused("explain", CASE, "--device", "cuda", REGARD_LIBCUDA="/no/such/libcuda.so.1")
        self.assertIn("/no/such/libcuda.so.1", line)

    def test_two_cases_are_refused(self):
        self.assertIn("2 cases", self.refused("explain", CASE, CASE))

    def cells(self, case, width="40"):
        lines = self.good("explain", case, "--no-measure", "--mask", COLUMNS=width).stdout.splitlines()
        begin = next(n for n, line in enumerate(lines) if line.startswith("mask "))
        end = next(n for n, line in enumerate(lines) if line.startswith("one cell:"))
        return [line.split()[1] for line in lines[begin + 1:end]], lines[end]

    def test_mask_draws_causal_triangle(self):
        rows, legend = self.cells("prefill sq=8 skv=8 causal")
        self.assertEqual(rows, ["█" * (i + 1) + "·" * (7 - i) for i in range(8)])
        self.assertIn("1 query x 1 key", legend)

    def test_mask_draws_partial_tiles_on_the_diagonal_of_scaled_cells(self):
        rows, legend = self.cells("prefill sq=64 skv=64 causal window=31,0")
        self.assertIn("2 queries x 2 keys", legend)
        self.assertEqual(len(rows), 32)
        self.assertEqual(rows[0], "▒" + "·" * 31)
        self.assertEqual(rows[31], "·" * 15 + "▒" + "█" * 15 + "▒")

    def test_mask_fits_the_terminal(self):
        for width in ("20", "57", "120"):
            rows, _ = self.cells("prefill sq=1000 skv=3000", width)
            self.assertTrue(all(len(row) + 5 <= int(width) for row in rows), width)

    def test_mask_hides_left_padding_and_marks_boolean_masks(self):
        rows, _ = self.cells("prefill sq=16 skv=16 mask=0.5")
        self.assertEqual(set("".join(rows)), {"▒"})
        rows, _ = self.cells("decode b=1 sq=4 skv=32 leftpad seed=3")
        pad = len(rows[0]) - len(rows[0].lstrip("·"))
        self.assertTrue(all(row == "·" * pad + "█" * (len(row) - pad) for row in rows), rows)

    def test_mask_of_a_sequence_that_is_not_there_is_refused(self):
        self.assertIn("sequence", self.refused("explain", "prefill b=2 sq=4 skv=4", "--mask", "--sequence", "2", "--no-measure"))


tool.main()
