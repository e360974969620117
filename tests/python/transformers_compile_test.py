"""Models with attn_implementation="regard" under torch.compile, autocast, checkpointing and dropout."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

t = pytest.importorskip("transformers")

import regard.transformers as rtf
from transformers_support import decoder, labels_of, padded, pair, tokens, worst


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    torch._dynamo.reset()
    rtf.register()
    yield
    rtf.unregister()


def _compiled(model: Any) -> Any:
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def _small(name: str) -> Any:
    config = decoder(name)
    config.num_hidden_layers = 1
    return config


def _same_gradients(theirs: Any, ours: Any) -> None:
    for a, b in zip(theirs.parameters(), ours.parameters()):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or worst(a.grad, b.grad) < 1e-3 * max(1.0, float(a.grad.abs().max()))


def test_a_compiled_training_step_is_one_graph_and_gives_eagers_loss_and_gradients() -> None:
    theirs, ours = pair(_small("llama"))
    ids, mask = padded()
    losses = [run(ids, attention_mask=mask, labels=labels_of(ids, mask), use_cache=False).loss
              for run in (theirs, _compiled(ours))]
    for loss in losses:
        loss.backward()
    assert worst(*losses) < 1e-4
    _same_gradients(theirs, ours)


@torch.no_grad()
@pytest.mark.parametrize("is_padded", [False, True])
def test_a_compiled_forward_with_a_window_is_one_graph_and_gives_eagers_logits(is_padded: bool) -> None:
    theirs, ours = pair(_small("mistral"))
    ids, mask = padded()
    options = {"attention_mask": mask} if is_padded else {}
    want, got = (m(ids, use_cache=False, **options).logits for m in (theirs, _compiled(ours)))
    assert worst(want, got, mask) < 2e-4


def test_generation_with_a_static_cache_and_a_compiled_forward_gives_eagers_tokens() -> None:
    theirs, ours = pair(_small("llama"))
    ids, mask = padded(2, 9)
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "cache_implementation": "static"}
    want = theirs.generate(ids, **options)
    ours.forward = torch.compile(ours.forward, backend="aot_eager")
    assert torch.equal(ours.generate(ids, **options), want)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    theirs, ours = pair(decoder("gemma2"))
    ids, mask = padded()
    ours.gradient_checkpointing_enable({"use_reentrant": reentrant})
    for model in (theirs, ours):
        model.train()
        model(ids, attention_mask=mask, labels=labels_of(ids, mask), use_cache=False).loss.backward()
    _same_gradients(theirs, ours)


@torch.no_grad()
def test_autocast_and_bf16_weights_stay_near_f32() -> None:
    f32, ours = pair(decoder("llama"))
    ids, mask = padded()
    want = f32(ids, attention_mask=mask).logits
    bf16 = pair(decoder("llama"), dtype=torch.bfloat16)
    eagers_error = worst(want, bf16[0](ids, attention_mask=mask).logits, mask)
    assert worst(want, bf16[1](ids, attention_mask=mask).logits, mask) < 1.5 * eagers_error
    with torch.autocast("cpu", torch.bfloat16):
        got = ours(ids, attention_mask=mask).logits
    assert worst(want, got, mask) < 1.5 * eagers_error


def test_attention_dropout_drops_in_training_only_and_is_repeated_by_the_seed() -> None:
    config = decoder("llama")
    config.attention_dropout = 0.5
    _, ours = pair(config)
    ids = tokens(2, 15)
    with torch.no_grad():
        still = ours(ids).logits
        assert torch.equal(still, ours(ids).logits)
        ours.train()
        runs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            runs.append(ours(ids).logits)
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2]) and not torch.equal(runs[0], still)
