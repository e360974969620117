"""The example that imports flash_attn after install() runs, and calls every function of it."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch")

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "python" / "flash_attn_unchanged.py"


def test_the_example_runs_every_function():
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from flash_attn_signatures_test import BERT_PADDING, ROTARY, TRITON_ROTARY, VERSION_2, VERSION_3, VERSION_4

    source = EXAMPLE.read_text()
    quiet = {
        "maybe_contiguous", "round_multiple", "_get_block_size_n", "rotate_half", "apply_rotary_emb_torch",
        "index_first_axis_residual",
    }
    for name in {**VERSION_2, **VERSION_3, **VERSION_4, **BERT_PADDING, **ROTARY, **TRITON_ROTARY}:
        if name not in quiet:
            assert f"{name}(" in source and name in done.stdout, name
