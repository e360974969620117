"""check_docs.py finds mistakes that are planted, and passes a tree without any."""
import os
import tempfile
import types
import unittest

import check_docs

GOOD = """# x
See `src/a.cc`, `./scripts/go` and [the page](docs/page.md). `cmake --preset release`
```cpp
int main() {}
```

```python
import regard
```
```console
$ regard explain "prefill b=1"
chosen ...
$ regard explain "prefill hq=7"
regard: hq: 7
```
"""


def fake_run(words, **_):
    ok = "--help" in words or "hq=7" not in words[-1]
    known = words[1] in ("explain", "bench")
    return types.SimpleNamespace(returncode=0 if ok and known else 2, stdout="  --json  --mask\n")


class CheckDocs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = self.folder.name
        self.write("README.md", GOOD)
        self.write("docs/page.md", "Back to [start](../README.md).\n")
        self.write("examples/attention.cc", "int main() {}\n")
        self.write("examples/quickstart.py", "import regard\n")
        self.write("src/a.cc", "// docs/page.md\n")
        self.write("scripts/go", "")
        self.write("CMakePresets.json", '{"configurePresets": [{"name": "release"}]}')

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def commands(self, text):
        self.write("README.md", "```console\n" + text + "\n```\n")
        return check_docs.failed_commands(self.root, "README.md", "regard", fake_run)

    def test_a_good_tree_passes(self):
        self.assertEqual(check_docs.main(self.root), 0)
        self.assertEqual(check_docs.failed_commands(self.root, "README.md", "regard", fake_run), [])

    def test_a_path_that_is_gone_is_found(self):
        os.remove(os.path.join(self.root, "src/a.cc"))
        self.assertEqual(check_docs.missing_paths(self.root, "README.md"), ["README.md: `src/a.cc` does not exist"])

    def test_a_dead_link_is_found(self):
        self.write("docs/page.md", "[start](nowhere.md)")
        self.assertIn("leads nowhere", check_docs.missing_paths(self.root, "docs/page.md")[0])

    def test_an_example_that_differs_is_found(self):
        for name, text in (("examples/attention.cc", "int main() {}\n"), ("examples/quickstart.py", "import regard\n")):
            self.write(name, text + "\n")
            self.assertEqual(len(check_docs.example_differs(self.root)), 1, name)
            self.assertEqual(check_docs.main(self.root), 1)
            self.write(name, text)

    def test_an_unknown_preset_is_found(self):
        self.write("README.md", "cmake --preset fast")
        self.assertIn("fast", check_docs.unknown_presets(self.root, "README.md")[0])

    def test_a_comment_that_points_nowhere_is_found(self):
        self.write("src/a.cc", "// docs/gone.md\n")
        self.assertIn("docs/gone.md", check_docs.dangling_comments(self.root)[0])

    def test_an_unknown_command_is_found(self):
        self.assertIn("no such command", self.commands("$ regard fly")[0])

    def test_an_unknown_option_is_found(self):
        self.assertIn("no option --fast", self.commands('$ regard explain "prefill b=1" --fast')[0])

    def test_a_refused_case_is_found(self):
        self.assertIn("exit 2, expected 0", self.commands('$ regard explain "prefill hq=7"\nchosen ...')[0])
        self.assertIn("the case is refused", self.commands('$ regard bench "prefill hq=7"')[0])

    def test_the_value_of_an_option_is_no_case(self):
        for value in ("backward-hq=7.json", "'prefill hq=7'"):
            self.assertEqual(self.commands(f"$ regard bench --json {value}"), [])

    def test_a_refusal_that_does_not_come_is_found(self):
        self.assertIn("exit 0, expected 2", self.commands('$ regard explain "prefill b=1"\nregard: b: ...')[0])


if __name__ == "__main__":
    unittest.main()
