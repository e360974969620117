"""Continuous batching through the name "regard_flash": every request gets the tokens that plain generation gives it."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch

t = pytest.importorskip("transformers")

import regard
import regard.transformers as rtf
from transformers import modeling_flash_attention_utils as flash_utils
from transformers_support import decoder, pair, tokens, worst


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    rtf.register()
    quiet = logging.getLogger("ContinuousBatchingLogger")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    yield
    quiet.setLevel(level)
    rtf.unregister()


def _batched(model: Any, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    config = t.ContinuousBatchingConfig(num_blocks=64, page_size=4, max_batch_tokens=16)
    generation = t.GenerationConfig(max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    out = model.generate_batch(prompts, generation_config=generation, continuous_batching_config=config)
    return [request.generated_tokens for request in out.values()]


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_each_request_gets_the_tokens_of_plain_generation(name: str) -> None:
    theirs, ours = pair(decoder(name), name="regard_flash")
    prompts = [tokens(1, n, seed=n)[0].tolist() for n in (5, 17, 9, 2)]
    want = [theirs.generate(torch.tensor([p]), max_new_tokens=8, do_sample=False)[0, len(p):].tolist() for p in prompts]
    assert _batched(ours, prompts, 8) == want
    assert len(set(sum(want, []))) > 4


@torch.no_grad()
def test_the_second_name_works_outside_continuous_batching_too() -> None:
    theirs, ours = pair(decoder("mistral"), name="regard_flash")
    assert worst(theirs(tokens()).logits, ours(tokens()).logits) < 2e-4


def test_a_table_of_pages_is_refused_with_the_way_out() -> None:
    q = torch.randn(1, 2, 1, 8)
    with pytest.raises(regard.Error, match="max_blocks_per_request=0") as caught:
        t.AttentionInterface()["regard_flash"](torch.nn.Module(), q, q, q, None, cache=object(),
                                               block_table=torch.zeros(1, 1))
    assert caught.value.field == "block_table"


def test_other_flash_names_still_go_to_transformers_own_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    rtf.unregister()
    seen: list[Any] = []
    monkeypatch.setattr(flash_utils, "_lazy_imports", lambda name, *rest, **named: seen.append(name))
    rtf.register()
    flash_utils._lazy_imports("flash_attention_2", None, allow_all_kernels=False)
    flash_utils._lazy_imports("regard_flash", None, allow_all_kernels=False)
    assert seen == ["flash_attention_2"]
    rtf.unregister()
    flash_utils._lazy_imports("regard_flash")
    assert seen == ["flash_attention_2", "regard_flash"]


def test_unregister_refuses_where_another_library_wrapped_the_loader_since() -> None:
    ours = flash_utils._lazy_imports
    flash_utils._lazy_imports = lambda *args: None
    with pytest.raises(regard.Error, match="later replacement"):
        rtf.unregister()
    assert rtf.registered()
    flash_utils._lazy_imports = ours
