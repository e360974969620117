"""The torch examples run, and what they print and write is what they promise."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"


def _run(name: str, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, str(EXAMPLES / name), *args], capture_output=True, text=True, timeout=300,
                          env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tiny_gpt_learns_with_the_loss_curve_that_torch_gives(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    out = _run("tiny_gpt.py", "--text", str(text), "--steps", "25", "--seq", "48", "--batch", "2", "--width", "32",
               "--heads", "2", "--lr", "0.01", "--every", "5", "--out", str(tmp_path / "gpt"))
    record = json.loads((tmp_path / "gpt.json").read_text(encoding="utf-8"))
    ours, theirs = record["regard"]["loss"], record["torch"]["loss"]
    assert len(ours) == len(theirs) == 25 and len(record["regard"]["ms"]) == 25
    assert ours[-1] < 0.8 * ours[0]
    assert max(abs(a - b) for a, b in zip(ours, theirs)) < 5e-3
    assert "largest gap" in out
    plot = Path(re.search(r"plot: (.*)", out).group(1))  # type: ignore[union-attr]
    assert plot.stat().st_size > 200 and plot.suffix in (".png", ".svg")


def test_tiny_gpt_says_what_is_wrong_with_a_text_that_is_too_short(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("short", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, str(EXAMPLES / "tiny_gpt.py"), "--text", str(text)], capture_output=True,
                          text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 1 and "5 characters" in done.stderr


def test_sliding_window_gives_the_same_numbers_in_three_ways() -> None:
    out = _run("sliding_window.py", "--seq", "160", "--window", "24", "--rounds", "1")
    gaps = [float(gap) for gap in re.findall(r"largest difference (\S+)", out)]
    assert len(gaps) == 2 and max(gaps) < 1e-5
