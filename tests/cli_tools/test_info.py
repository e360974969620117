import tool


class Info(tool.ToolTest):
    def test_names_cpu_instruction_sets_and_caches(self):
        text = self.good("info").stdout
        for word in ("cpu", "isas", "threads", "L1", "L2", "L3"):
            self.assertIn(word, text)

    def test_json_has_best_isa_last_in_list(self):
        info = self.good_json("info", "--json")
        self.assertEqual(info["isas"][-1], info["best_isa"])
        self.assertIn("scalar", info["isas"])
        self.assertNotIn("flops_roofs", info)

    def test_environment_cuts_the_instruction_sets_and_threads(self):
        info = self.good_json("info", "--json", REGARD_CPU_ISA="scalar", REGARD_THREADS="3")
        self.assertEqual(info["isas"], ["scalar"])
        self.assertEqual(info["threads"], 3)

    def test_says_why_there_is_no_gpu(self):
        absent = {"REGARD_LIBCUDA": "/no/such/libcuda.so.1"}
        line = next(line for line in self.good("info", **absent).stdout.splitlines() if line.startswith("gpus "))
        self.assertIn("none", line)
        self.assertIn("/no/such/libcuda.so.1", line)
        self.assertIn(" -> ", line)
        info = self.good_json("info", "--json", **absent)
        self.assertEqual(info["gpus"], [])
        self.assertIn("/no/such/libcuda.so.1", info["gpus_missing"])

    def test_measure_reports_each_isas_fma_roof_and_reading_with_one_and_all_threads(self):
        info = self.good_json("info", "--measure", "--json", REGARD_THREADS="2")
        fma = [roof["isa"] for roof in info["flops_roofs"] if roof["roof"] == "fma_f32"]
        self.assertEqual(fma, info["isas"])
        for roof in info["flops_roofs"]:
            self.assertGreater(roof["gflops_one_thread"], 0)
            self.assertGreaterEqual(roof["pipes"], 1)
        self.assertEqual([roof["threads"] for roof in info["read_roofs"]], [1, 2])
        self.assertTrue(all(roof["gbps"] > 0 for roof in info["read_roofs"]))
        dots = [roof["isa"] for roof in info["flops_roofs"] if roof["roof"] == "dot_bf16"]
        self.assertEqual(dots, [isa for isa in info["isas"] if isa == "avx512_bf16"])


tool.main()
