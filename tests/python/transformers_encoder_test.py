"""Encoders and encoder-decoders with attn_implementation="regard" against eager attention."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

t = pytest.importorskip("transformers")

import regard.transformers as rtf
from transformers_support import VOCABULARY, padded, pair, tokens, worst


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    rtf.register()
    yield
    rtf.unregister()


def _bert() -> Any:
    return t.BertConfig(vocab_size=VOCABULARY, hidden_size=60, num_hidden_layers=2, num_attention_heads=3,
                        intermediate_size=70, max_position_embeddings=64)


def _modernbert() -> Any:
    return t.ModernBertConfig(vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                              intermediate_size=60, max_position_embeddings=64, local_attention=6, pad_token_id=0,
                              layer_types=["full_attention", "sliding_attention"])


def _t5() -> Any:
    return t.T5Config(vocab_size=VOCABULARY, d_model=48, d_kv=12, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0,
                      relative_attention_num_buckets=8, decoder_start_token_id=0, eos_token_id=None)


def _whisper() -> Any:
    return t.WhisperConfig(vocab_size=VOCABULARY, d_model=48, encoder_layers=2, decoder_layers=2,
                           encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
                           decoder_ffn_dim=64, num_mel_bins=8, max_source_positions=15, max_target_positions=40,
                           pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
                           suppress_tokens=None, begin_suppress_tokens=None)


def _bart() -> Any:
    return t.BartConfig(vocab_size=VOCABULARY, d_model=48, encoder_layers=2, decoder_layers=2,
                        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
                        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                        decoder_start_token_id=1, forced_eos_token_id=None)


def _gradients(model: Any, **inputs: Any) -> dict[str, Tensor]:
    model.zero_grad()
    out = model(**inputs)
    if "labels" not in inputs:
        states = out.last_hidden_state * inputs["attention_mask"][..., None]
    (out.loss if "labels" in inputs else states.square().mean()).backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return got


def _same_gradients(theirs: Any, ours: Any, **inputs: Any) -> None:
    want, got = _gradients(theirs, **inputs), _gradients(ours, **inputs)
    assert want.keys() == got.keys()
    for name, grad in want.items():
        assert worst(grad, got[name]) < 1e-3 * max(1.0, float(grad.abs().max())), name


@pytest.mark.parametrize("make", [_bert, _modernbert])
@pytest.mark.parametrize("side", ["right", "left", "hole"])
def test_an_encoder_gives_eagers_states_and_gradients_whatever_its_padding(make: Any, side: str) -> None:
    theirs, ours = pair(make(), t.AutoModel)
    ids, mask = padded(3, 21, "left" if side == "left" else "right")
    if side == "hole":
        mask[:, 3] = 0
    with torch.no_grad():
        want, got = (m(ids, attention_mask=mask).last_hidden_state for m in (theirs, ours))
    assert worst(want, got, mask) < 2e-5
    _same_gradients(theirs, ours, input_ids=ids, attention_mask=mask)


@torch.no_grad()
@pytest.mark.parametrize("make", [_bert, _modernbert])
def test_an_encoder_without_padding_gives_eagers_states(make: Any) -> None:
    theirs, ours = pair(make(), t.AutoModel)
    for ids in (tokens(2, 18), tokens(1, 1)):
        assert worst(theirs(ids).last_hidden_state, ours(ids).last_hidden_state) < 2e-5


@pytest.mark.parametrize("make", [_t5, _bart])
def test_an_encoder_decoder_gives_eagers_logits_gradients_and_tokens(make: Any) -> None:
    theirs, ours = pair(make(), t.AutoModelForSeq2SeqLM)
    ids, mask = padded(3, 14, "right")
    labels = tokens(3, 9, seed=4)
    with torch.no_grad():
        want, got = (m(input_ids=ids, attention_mask=mask, labels=labels).logits for m in (theirs, ours))
    assert worst(want, got) < 1e-3
    _same_gradients(theirs, ours, input_ids=ids, attention_mask=mask, labels=labels)
    for options in ({}, {"cache_implementation": "static"}, {"num_beams": 3}):
        want, got = (m.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, **options)
                     for m in (theirs, ours))
        assert torch.equal(want, got), options


def test_a_learned_position_bias_gets_eagers_gradient() -> None:
    theirs, ours = pair(_t5(), t.AutoModelForSeq2SeqLM)
    ids, mask = padded(2, 11, "right")
    want, got = (_gradients(m, input_ids=ids, attention_mask=mask, labels=tokens(2, 7)) for m in (theirs, ours))
    for name in (name for name in want if "relative_attention_bias" in name):
        assert float(want[name].abs().max()) > 0
        assert worst(want[name], got[name]) < 1e-4 * max(1.0, float(want[name].abs().max()))


def test_whisper_gives_eagers_logits_gradients_and_tokens() -> None:
    theirs, ours = pair(_whisper(), t.AutoModelForSpeechSeq2Seq)
    features = torch.randn(2, 8, 30, generator=torch.Generator().manual_seed(0))
    labels = tokens(2, 7)
    with torch.no_grad():
        want, got = (m(input_features=features, labels=labels).logits for m in (theirs, ours))
    assert worst(want, got) < 1e-3
    _same_gradients(theirs, ours, input_features=features, labels=labels)
    want, got = (m.generate(features, max_new_tokens=8, do_sample=False) for m in (theirs, ours))
    assert torch.equal(want, got)
