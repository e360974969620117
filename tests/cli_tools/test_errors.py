import tool


class Errors(tool.ToolTest):
    def test_version_and_help_are_good(self):
        self.assertRegex(self.good("--version").stdout, r"^regard \d+\.\d+\.\d+\n$")
        for command in ("info", "list", "explain", "run", "check", "bench", "cuda"):
            self.assertIn(command, self.good("--help").stdout)
            self.good(command, "--help")

    def test_command_line_mistakes_are_one_line_that_points_to_help(self):
        self.assertIn("regard --help", self.refused())
        self.assertIn("regard --help", self.refused("measure"))
        self.assertIn("regard bench --help", self.refused("bench", "--threads", "many"))
        self.assertIn("regard explain --help", self.refused("explain"))

    def test_bad_cases_name_the_field(self):
        self.assertIn("hq: 7", self.refused("explain", "prefill hq=7 hkv=2"))
        self.assertIn("sofcap", self.refused("bench", "decode sofcap=3"))
        self.assertIn("softcap", self.refused("bench", "decode sofcap=3"))

    def test_bench_wants_exactly_one_way_of_naming_cases(self):
        self.assertIn("--suite NAME", self.refused("bench"))
        self.assertIn("several", self.refused("bench", "--quick", "--suite", "core"))
        self.assertIn("core", self.refused("bench", "--suite", "cores"))

    def test_bench_refuses_before_it_measures(self):
        self.assertIn("/nowhere/r.json", self.refused("bench", "--suite", "core", "--json", "/nowhere/r.json"))
        self.assertIn("--repeat", self.refused("bench", "--quick", "--repeat", "-1"))
        self.assertIn("--threads", self.refused("bench", "--quick", "--threads", "5000"))
        self.assertIn("kernel", self.refused("bench", "decode skv=9", "--kernel", "cpu.mmx"))

    def test_rows_and_goals_want_a_suite_that_has_them(self):
        self.assertIn("--suite cpu", self.refused("bench", "--quick", "--rows", "decode"))
        self.assertIn("--suite cpu", self.refused("bench", "--suite", "core", "--require-goals"))
        self.assertIn("--rows: nosuchrow", self.refused("bench", "--suite", "cpu", "--rows", "nosuchrow"))
        self.assertIn("--report", self.refused("bench", "--suite", "cpu", "--report", "r.html"))
        self.assertIn("--kernel", self.refused("bench", "--suite", "cpu", "--kernel", "cpu.avx2"))

    def test_backends_are_known_by_name_and_exclude_kernels(self):
        case = "decode skv=9"
        for command in ("run", "check", "bench"):
            self.assertIn("cpu, cuda or reference", self.refused(command, case, "--backend", "rocm"))
            self.assertIn("one of --backend and --kernel", self.refused(command, case, "--backend", "cpu", "--kernel", "cpu.scalar"))
            self.assertIn("/no/such/libcuda.so.1", self.refused(command, case, "--backend", "cuda", REGARD_LIBCUDA="/no/such/libcuda.so.1"))
        self.good("run", case, "--backend", "reference")

    def test_unknown_isa_names_the_known_ones(self):
        self.assertIn("avx512_bf16", self.refused("explain", "decode", "--device-isa", "sse9"))


tool.main()
