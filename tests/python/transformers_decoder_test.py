"""Decoders with attn_implementation="regard": logits, gradients and greedy generation against eager attention."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import regard.transformers as rtf
from transformers_support import DECODERS, decoder, labels_of, padded, pair, tokens, worst


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    rtf.register()
    yield
    rtf.unregister()


@pytest.fixture(scope="module", params=DECODERS)
def models(request: Any) -> tuple[Any, Any]:
    rtf.register()
    return pair(decoder(request.param))


@torch.no_grad()
def test_logits_are_those_of_eager(models: tuple[Any, Any]) -> None:
    theirs, ours = models
    for ids in (tokens(2, 17), tokens(1, 1), tokens(1, 5)):
        assert worst(theirs(ids).logits, ours(ids).logits) < 2e-4


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_of_real_tokens_in_padded_batches_are_those_of_eager(models: tuple[Any, Any], side: str) -> None:
    theirs, ours = models
    ids, mask = padded(side=side)
    got = ours(ids, attention_mask=mask).logits
    assert worst(theirs(ids, attention_mask=mask).logits, got, mask) < 2e-4
    assert torch.isfinite(got).all()


@torch.no_grad()
def test_holes_in_the_padding_are_honoured(models: tuple[Any, Any]) -> None:
    theirs, ours = models
    ids, mask = padded()
    mask[:, 12] = 0
    assert worst(theirs(ids, attention_mask=mask).logits, ours(ids, attention_mask=mask).logits, mask) < 2e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_are_those_of_eager(models: tuple[Any, Any], side: str) -> None:
    theirs, ours = models
    ids, mask = padded(side=side)
    labels = labels_of(ids, mask)
    got = []
    for model in (theirs, ours):
        model.zero_grad()
        model.train()
        model(ids, attention_mask=mask, labels=labels).loss.backward()
        model.eval()
        got.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad(set_to_none=True)
    assert got[0].keys() == got[1].keys()
    for name, grad in got[0].items():
        assert worst(grad, got[1][name]) < 1e-3 * max(1.0, float(grad.abs().max())), name


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("is_padded", [False, True])
def test_greedy_generation_is_eagers_token_for_token(models: tuple[Any, Any], cache: str, is_padded: bool) -> None:
    theirs, ours = models
    ids, mask = padded(3, 11) if is_padded else (tokens(2, 11), torch.ones(2, 11, dtype=torch.long))
    options = {"max_new_tokens": 9, "do_sample": False, "attention_mask": mask}
    if cache == "static":
        options["cache_implementation"] = "static"
    want = theirs.generate(ids, **options)
    assert torch.equal(ours.generate(ids, **options), want)
    assert len(want[:, 11:].unique()) > 6
