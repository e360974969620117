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
