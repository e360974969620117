"""What reaches regard: masks as structure, and what a Mask is worth to code that takes it for a tensor."""
from __future__ import annotations

import copy
import itertools
import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import regard
import regard.torch._call as call
import regard.torch._log as log_module
import regard.transformers as rtf
from regard.transformers import _patterns
import transformers
from transformers import DynamicCache, StaticCache, masking_utils as hf
from transformers_support import decoder, padded, pair, tokens, worst

STARTS = torch.tensor([3, 0])


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    rtf.register()
    yield
    rtf.log_dispatch(False)
    rtf.unregister()


@pytest.fixture
def log(caplog: Any) -> Any:
    caplog.set_level(logging.INFO, logger="regard.torch")
    log_module.enabled = True
    return caplog


FUNCTIONS = {
    "causal": hf.causal_mask_function,
    "window": hf.sliding_window_causal_mask_function(4),
    "both sides": hf.bidirectional_mask_function,
    "window on both sides": hf.sliding_window_bidirectional_mask_function(2),
    "chunk": hf.chunked_causal_mask_function(3, STARTS),
}
PADDING = {
    "none": None,
    "left": torch.arange(9) >= STARTS[:, None],
    "right": torch.arange(9) < 9 - STARTS[:, None],
    "hole": torch.arange(9) != STARTS[:, None] + 2,
    "all of a row": torch.arange(9) >= torch.tensor([9, 0])[:, None],
    "shorter than the keys": torch.ones(2, 5, dtype=torch.bool),
}


@pytest.mark.parametrize(("function", "padding"), itertools.product(FUNCTIONS, PADDING))
@pytest.mark.parametrize(("q_length", "q_offset", "kv_length", "kv_offset"), [
    (9, 0, 9, 0), (1, 8, 9, 0), (4, 5, 9, 0), (3, 2, 9, 0), (3, torch.tensor(2), 9, 0), (2, 7, 5, 4)])
def test_every_mask_has_the_elements_that_transformers_computes(function: str, padding: str, q_length: int,
                                                                q_offset: Any, kv_length: int, kv_offset: int) -> None:
    case: dict[str, Any] = {"batch_size": 2, "q_length": q_length, "kv_length": kv_length, "q_offset": q_offset,
                            "kv_offset": kv_offset, "mask_function": FUNCTIONS[function],
                            "attention_mask": PADDING[padding], "allow_is_causal_skip": False}
    want, got = hf.sdpa_mask(**case), rtf.mask_function(**case)
    assert got is not None and got.shape == want.shape and got.dtype == torch.bool
    assert torch.equal(got & torch.ones((), dtype=torch.bool), want)
    assert isinstance(got, rtf.Mask) or function == "chunk"


def test_none_stands_for_the_same_masks_as_in_transformers_own_sdpa() -> None:
    ones = torch.ones(2, 9, dtype=torch.bool)
    for padding, (q, o) in itertools.product((None, ones), ((9, 0), (1, 8))):
        case: dict[str, Any] = {"batch_size": 2, "q_length": q, "kv_length": 9, "q_offset": o,
                                "attention_mask": padding}
        assert hf.sdpa_mask(**case) is None and rtf.mask_function(**case) is None
        case.update(mask_function=hf.bidirectional_mask_function, allow_is_causal_skip=False,
                    allow_is_bidirectional_skip=True)
        assert hf.sdpa_mask(**case) is None and rtf.mask_function(**case) is None
    assert rtf.mask_function(2, 4, 9, q_offset=5) is not None
    assert rtf.mask_function(2, 9, 9, mask_function=FUNCTIONS["window"], local_size=4) is not None


def test_any_operation_on_a_mask_sees_all_of_its_elements() -> None:
    mask = rtf.mask_function(2, 3, 9, q_offset=6, attention_mask=PADDING["left"])
    assert isinstance(mask, rtf.Mask) and "start" in repr(mask) and mask.dim() == 4
    dense = mask.dense()
    assert type(dense) is torch.Tensor
    assert torch.equal(mask[:, :, :, :4], dense[:, :, :, :4])
    assert torch.equal(~mask, ~dense)
    assert torch.equal(torch.where(mask, 0.0, -1.0), torch.where(dense, 0.0, -1.0))
    assert torch.equal(mask.detach(), dense) and torch.equal(mask.float() + 1, dense.float() + 1)


def test_what_is_written_to_a_mask_or_to_a_view_of_it_counts() -> None:
    q, module = torch.randn(2, 4, 3, 8), torch.nn.Module()
    k = torch.randn(2, 2, 9, 8)
    writes: list[Any] = [lambda m: m.__setitem__((0, 0, 1, 2), False), lambda m: m[0, 0, 1].fill_(False),
                         lambda m: m.logical_and_(torch.arange(9) < 2)]
    for write in writes:
        mask = rtf.mask_function(2, 3, 9, q_offset=6)
        assert isinstance(mask, rtf.Mask)
        dense = mask.dense()
        write(mask), write(dense)
        assert torch.equal(mask & True, dense) and not bool(dense[0, 0, 1, 2])
        ours, want = (rtf.attention(module, q, k, k, m)[0] for m in (mask, dense))
        assert torch.equal(ours, want)


def test_a_mask_can_be_copied_pickled_and_listed() -> None:
    mask = rtf.mask_function(2, 3, 9, q_offset=6, attention_mask=PADDING["left"])
    assert isinstance(mask, rtf.Mask)
    for other in (copy.deepcopy(mask), copy.copy(mask), pickle.loads(pickle.dumps(mask))):
        assert torch.equal(other.dense(), mask.dense())
    assert mask.tolist() == mask.dense().tolist() and mask.numpy().shape == (2, 1, 3, 9)


def test_a_mask_function_of_the_models_own_is_computed_element_by_element_and_says_so(log: Any) -> None:
    prefix = hf.or_masks(hf.causal_mask_function, lambda b, h, q, k: k < 2)
    mask = rtf.mask_function(1, 5, 5, mask_function=prefix, use_vmap=True, allow_is_causal_skip=False)
    want = torch.tril(torch.ones(5, 5, dtype=torch.bool)) | (torch.arange(5) < 2)
    assert type(mask) is torch.Tensor and torch.equal(mask[0, 0], want)
    assert "element by element" in log.records[-1].message


def test_no_pattern_is_trusted_that_differs_from_this_version_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _patterns.recognise(FUNCTIONS["window"]) is not None
    _patterns._meanings_hold.cache_clear()
    monkeypatch.setattr(hf, "sliding_window_overlay", lambda w: lambda b, h, q, k: k >= q - w)
    assert _patterns.recognise(hf.sliding_window_causal_mask_function(4)) is None
    _patterns._meanings_hold.cache_clear()
    monkeypatch.undo()
    assert _patterns.recognise(hf.sliding_window_causal_mask_function(4)) is not None


@torch.no_grad()
@pytest.mark.parametrize(("name", "words"), [("mistral", "causal window=6,"), ("llama4", "causal chunk=6"),
                                             ("llama", "causal"), ("gpt_oss", "sink")])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_left_padding_windows_and_chunks_reach_regard_as_structure(log: Any, name: str, words: str, cache: str) -> None:
    _, ours = pair(decoder(name))
    ids, mask = padded()
    options = {"cache_implementation": "static"} if cache == "static" else {}
    ours.generate(ids, attention_mask=mask, max_new_tokens=3, do_sample=False, **options)
    lines = [r.message for r in log.records if "->" in r.message]
    assert any(words in line and "leftpad" in line and "prefill" in line for line in lines)
    assert any("decode" in line for line in lines)
    assert name == "llama4" or not any("mask" in line for line in lines)


def test_packed_sequences_attend_to_themselves_without_a_mask(log: Any) -> None:
    theirs, ours = pair(decoder("mistral"))
    ids = tokens(2, 19)
    positions = torch.tensor([[*range(7), *range(12)], [*range(3), *range(10), *range(6)]])
    want, got = (m(ids, position_ids=positions, use_cache=False).logits for m in (theirs, ours))
    assert worst(want, got) < 2e-4
    assert " b=5 " in log.records[-1].message and "mask" not in log.records[-1].message
    alone = ours(ids[1:, 13:], use_cache=False).logits
    assert worst(alone, got[1:, 13:]) < 2e-4
    weights = torch.randn_like(got)
    for model, out in ((theirs, want), (ours, got)):
        (out * weights).sum().backward()
    for a, b in zip(theirs.parameters(), ours.parameters()):
        assert worst(a.grad, b.grad) < 1e-3 * max(1.0, float(a.grad.abs().max()))


def test_cu_seq_lens_from_a_collator_are_honoured() -> None:
    _, ours = pair(decoder("llama"))
    ids, starts = tokens(1, 12), torch.tensor([0, 5, 12], dtype=torch.int32)
    positions = torch.tensor([[*range(5), *range(7)]])
    want = ours(ids, position_ids=positions, use_cache=False).logits
    got = ours(ids, position_ids=positions, use_cache=False, cu_seq_lens_q=starts, cu_seq_lens_k=starts,
               max_length_q=7, max_length_k=7).logits
    assert worst(want, got) < 1e-5
    assert worst(ours(ids[:, 5:], use_cache=False).logits, got[:, 5:]) < 2e-4


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_decode_step_reads_the_cache_in_place(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    _, ours = pair(decoder("llama"))
    cache = DynamicCache(config=ours.config) if kind == "dynamic" else StaticCache(config=ours.config, max_cache_len=40)
    ours(tokens(2, 30), past_key_values=cache)
    seen: list[tuple[Any, ...]] = []
    run = call._run
    monkeypatch.setattr(call, "_run", lambda f, *args, **named: seen.append(args) or run(f, *args, **named))
    ours(tokens(2, 1), past_key_values=cache)
    assert len(seen) == 2
    for layer, (_, k, v) in zip(cache.layers, seen):
        assert k.data_ptr() == layer.keys.data_ptr() and v.data_ptr() == layer.values.data_ptr()
        assert k.shape == layer.keys.transpose(1, 2).shape and k.shape[2] == 2


@torch.no_grad()
def test_a_custom_mask_of_four_dims_is_taken_bool_or_added() -> None:
    theirs, ours = pair(decoder("llama"))
    ids = tokens(2, 8)
    seen = torch.tril(torch.ones(8, 8, dtype=torch.bool)) & (torch.arange(8) != 3)
    seen[3, 3] = True
    seen = seen.expand(2, 1, 8, 8)
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    want = theirs(ids, attention_mask=added).logits
    assert worst(want, ours(ids, attention_mask=added).logits) < 2e-4
    assert worst(want, ours(ids, attention_mask=seen).logits) < 2e-4


@torch.no_grad()
def test_queries_of_batch_one_meet_keys_of_a_larger_batch() -> None:
    q, k, v = torch.randn(1, 4, 3, 16), torch.randn(5, 2, 7, 16), torch.randn(5, 2, 7, 16)
    module = torch.nn.Module()
    got, nothing = rtf.attention(module, q, k, v, None, is_causal=False)
    want, _ = rtf.attention(module, q.expand(5, -1, -1, -1), k, v, None, is_causal=False)
    assert got.shape == (5, 3, 4, 16) and got.is_contiguous() and torch.equal(got, want) and nothing is None


def test_what_regard_cannot_do_is_refused_with_the_way_out() -> None:
    q, module = torch.randn(2, 2, 3, 8), torch.nn.Module()
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("output_attentions", {"output_attentions": True}, "eager"), ("indices", {"indices": q}, "sdpa")]
    for field, named, way in refused:
        with pytest.raises(regard.Error, match=way) as caught:
            rtf.attention(module, q, q, q, None, **named)
        assert caught.value.field == field
    with pytest.raises(regard.Error) as caught:
        rtf.attention(module, q, torch.randn(3, 2, 3, 8), torch.randn(3, 2, 3, 8), None)
    assert caught.value.field == "query.shape[0]"
    with pytest.raises(regard.Error, match="float64"):
        rtf.attention(module, q.double(), q.double(), q.double(), None)


def test_a_transformers_that_describes_masks_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "sdpa_mask", lambda batch_size, cache_position, kv_length: None)
    with pytest.raises(regard.Error, match="q_offset") as caught:
        rtf.register()
    assert caught.value.field == "transformers"


def test_a_model_whose_attention_is_its_own_code_is_refused_instead_of_getting_a_mask_it_misreads() -> None:
    config = transformers.BloomConfig(vocab_size=97, hidden_size=64, n_layer=1, n_head=4)
    _, ours = pair(config)
    with pytest.raises(regard.Error, match="BloomConfig") as caught:
        ours(tokens())
    assert caught.value.field == "attn_implementation"


def test_register_is_undone_by_unregister_and_both_may_be_repeated() -> None:
    rtf.register()
    assert rtf.registered()
    rtf.unregister()
    rtf.unregister()
    assert not rtf.registered()
    with pytest.raises(ValueError, match="regard"):
        pair(decoder("llama"))
