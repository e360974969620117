"""The transformers example runs, and what it prints is what it promises."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "python" / "hugging_face.py"


def test_the_example_makes_eagers_tokens_and_names_the_kernels() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, str(EXAMPLE), "--tokens", "10", "--batch", "2"], capture_output=True,
                          text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 tokens, the same as eager attention's" in done.stdout
    assert "prefill b=2 sq=20" in done.stdout and "leftpad" in done.stdout and "decode b=2 sq=1" in done.stdout
