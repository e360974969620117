"""The Python benchmarks run on small sizes, compare results as they promise, and write JSON that says where they ran."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

BENCH = Path(__file__).resolve().parents[2] / "bench"


def _run(out: Path, name: str, *args: str) -> tuple[str, dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, str(BENCH / name), *args, "--out", str(out)], capture_output=True, text=True,
                          timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert record["machine"]["cpu"] and record["machine"]["threads"] >= 1 and record["commit"]
    assert record["versions"]["torch"] == torch.__version__ and name in record["command"]
    for row in record["rows"]:
        assert row["value"] > 0 and row["case"] in done.stdout
        value, goal = row["value"], row["goal"]
        assert row["met"] == (None if goal is None else value <= goal if row["less_is_better"] else value >= goal)
    return done.stdout, record


def test_python_calls_has_a_row_for_each_way_into_the_library(tmp_path: Path) -> None:
    _, record = _run(tmp_path / "calls.json", "python_calls.py", "--rounds", "1", "--calls", "5")
    cases = " ".join(row["case"] for row in record["rows"])
    for way in ("regard.attention, NumPy", "regard.attention, torch", "flash_attn_with_kvcache",
                "regard.torch.scaled_dot_product_attention"):
        assert way in cases
    assert record["interleaved_ms"]["ratio"] > 0


def test_python_vs_torch_measures_training_decode_and_the_gpt(tmp_path: Path) -> None:
    out, record = _run(tmp_path / "vs.json", "python_vs_torch.py", "--threads", "1", "--rounds", "2", "--min-time", "0",
                       "--seq", "40", "--heads", "4", "--heads-kv", "2", "--head-dim", "24", "--keys", "300",
                       "--gpt-seq", "48", "--width", "32")
    cases = [row["case"] for row in record["rows"]]
    assert sum(case.startswith("train") for case in cases) == 4  # two types, full and causal
    assert sum(case.startswith("decode") for case in cases) == 4  # two types, two ways
    assert sum(case.startswith("tiny GPT") for case in cases) == 1
    assert "9 rows" in out
    for row in record["rows"][:4]:
        assert 0 <= row["figures"]["error_dq"] < 0.1
