"""The examples that need NumPy alone run, and what they print is what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"


def run(name, *args):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run([sys.executable, str(EXAMPLES / name), *args], capture_output=True, text=True, timeout=300,
                          env=environment)


@pytest.mark.parametrize("args", [(), ("--page", "1", "--pages", "80"),
                                  ("--page", "5", "--prompts", "0", "9", "--steps", "7"),
                                  ("--prompts", "4", "--steps", "1", "--heads", "2", "--width", "24")])
def test_paged_decoding_gives_the_numbers_of_a_dense_cache(args):
    done = run("paged_decoding.py", *args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("largest difference between pages and dense rows: 0")


def test_paged_decoding_draws_every_key_in_a_page_of_its_sequence():
    out = run("paged_decoding.py", "--prompts", "5", "2", "--steps", "4", "--page", "3", "--pages", "6").stdout
    drawn = re.split(r"^(?=the prompts|step )", out, flags=re.MULTILINE)[1:]
    assert drawn[0].startswith("the prompts") and any("A has left, C begins in its pages" in part for part in drawn)
    for part in drawn:
        pool = "".join(re.findall(r"^  \|(.*)\|$", part, re.MULTILINE)).split("|")
        assert len(pool) == 6 and {len(page) for page in pool} == {3}
        for name, keys, pages in re.findall(r"^  ([A-Z]): +(\d+) keys in pages ([\d ]+)$", part, re.MULTILINE):
            assert sum(page.count(name) for page in pool) == int(keys)
            assert {n for n, page in enumerate(pool) if name in page} == {int(p) for p in pages.split()}


def test_paged_decoding_says_when_its_pool_is_too_small():
    done = run("paged_decoding.py", "--pages", "5")
    assert done.returncode == 1 and "all 5 pages of 4 keys are in use" in done.stderr and "Traceback" not in done.stderr
