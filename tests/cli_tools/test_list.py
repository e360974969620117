import tool


class List(tool.ToolTest):
    def test_every_kernel_says_what_it_supports(self):
        kernels = self.good_json("list", "--json")
        names = [k["kernel"] for k in kernels]
        self.assertEqual(len(set(names)), len(names))
        for kernel in kernels:
            self.assertTrue(kernel["phases"], kernel)
            self.assertTrue(kernel["dtypes"], kernel)
            self.assertTrue(set(kernel["features"].values()) <= {"all", "some", "none"})

    def test_reference_is_last_and_supports_every_feature(self):
        reference = self.good_json("list", "--json")[-1]
        self.assertEqual(reference["kernel"], "reference")
        lacking = [name for name, support in reference["features"].items() if support != "all"]
        self.assertEqual(lacking, [])
        self.assertEqual(reference["phases"], ["prefill", "decode", "mixed", "backward"])
        self.assertEqual(reference["max_head_dim"], 512)

    def test_kernels_above_the_forced_isa_do_not_run_here_but_stay_described(self):
        kernels = self.good_json("list", "--json", REGARD_CPU_ISA="scalar")
        here = {k["kernel"] for k in kernels if k["here"]}
        self.assertIn("reference", here)
        self.assertFalse([name for name in here if name.startswith(("cpu.avx", "cpu.neon"))])
        self.assertEqual([k["features"] for k in kernels], [k["features"] for k in self.good_json("list", "--json")])

    def test_gpu_kernels_are_described_where_there_is_no_gpu(self):
        kernels = {k["kernel"]: k for k in self.good_json("list", "--json", REGARD_LIBCUDA="/no/such/libcuda.so.1")}
        self.assertFalse([name for name, k in kernels.items() if name.startswith("cuda.") and k["here"]])
        self.assertEqual(kernels["cuda.sm80.prefill.bf16"]["max_head_dim"], 256)
        self.assertEqual(kernels["cuda.sm75.decode.f16"]["dtypes"], ["f16"])
        self.assertEqual(kernels["cuda.generic.decode.f32"]["max_head_dim"], 512)
        self.assertEqual(kernels["cuda.generic.decode.f32"]["features"]["qv"], "all")
        self.assertEqual(kernels["cuda.sm80.decode.f16"]["features"]["scoremod"], "none")

    def test_matrix_has_one_line_a_kernel(self):
        text = self.good("list").stdout
        for kernel in self.good_json("list", "--json"):
            lines = [line for line in text.splitlines() if line.split()[:1] == [kernel["kernel"]]]
            self.assertGreaterEqual(len(lines), 1, kernel["kernel"])


tool.main()
