"""Helpers of the transformers tests: small random models, one with eager attention, one with regard, same weights."""
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers")

VOCABULARY = 97
BASE: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2,
                        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
                        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None, "tie_word_embeddings": False}


def decoder(name: str) -> Any:
    """The configuration of a small decoder: the options that a family of models uses, at odd sizes."""
    t = transformers
    make = {
        "llama": lambda: t.LlamaConfig(**BASE),
        "mistral": lambda: t.MistralConfig(**BASE, sliding_window=7),
        "qwen2": lambda: t.Qwen2Config(**BASE),
        "qwen3": lambda: t.Qwen3Config(**BASE, head_dim=24),
        "gemma2": lambda: t.Gemma2Config(**BASE, head_dim=20, query_pre_attn_scalar=20, sliding_window=5,
                                         attn_logit_softcapping=2.0),
        "gemma3": lambda: t.Gemma3TextConfig(**BASE, head_dim=16, query_pre_attn_scalar=16, sliding_window=6,
                                             layer_types=["sliding_attention", "full_attention"]),
        "gpt_oss": lambda: t.GptOssConfig(**BASE, head_dim=16, sliding_window=6, num_local_experts=2,
                                          num_experts_per_tok=1,
                                          layer_types=["sliding_attention", "full_attention"]),
        "llama4": lambda: t.Llama4TextConfig(**{**BASE, "intermediate_size_mlp": 80}, head_dim=16,
                                             attention_chunk_size=6, num_local_experts=2, num_experts_per_tok=1,
                                             layer_types=["chunked_attention", "full_attention"]),
    }
    return make[name]()


DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt_oss", "llama4")


def pair(config: Any, auto: Any = None, name: str = "regard", spread: float = 0.2, dtype: torch.dtype = torch.float32,
         other: str = "eager") -> tuple[Any, Any]:
    """(a model with `other` attention, the same with `name`), in eval mode. Weights are wide enough for attention to
    be far from uniform, and sinks are not zero."""
    auto = auto or transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    theirs = auto.from_config(copy.deepcopy(config), attn_implementation=other, dtype=dtype).eval()
    with torch.no_grad():
        for key, p in theirs.named_parameters():
            if p.dim() > 1 or "sinks" in key:
                p.normal_(0, spread)
    ours = auto.from_config(copy.deepcopy(config), attn_implementation=name, dtype=dtype).eval()
    ours.load_state_dict(theirs.state_dict())
    assert theirs.config._attn_implementation == other and ours.config._attn_implementation == name
    return theirs, ours


def tokens(batch: int = 3, length: int = 19, seed: int = 1) -> Tensor:
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded(batch: int = 3, length: int = 19, side: str = "left") -> tuple[Tensor, Tensor]:
    """Token ids and their attention mask; every row but one is padded, by different lengths."""
    ids, mask = tokens(batch, length), torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        n = row * 4
        mask[row, :n] = 0
    if side == "right":
        mask = mask.flip(-1)
    return ids.masked_fill(mask == 0, 0), mask


def labels_of(ids: Tensor, mask: Tensor) -> Tensor:
    """Labels of the real tokens that follow a real token: nothing else may depend on what padding attends to."""
    before = torch.nn.functional.pad(mask, (1, 0))[:, :-1]
    return ids.masked_fill((mask * before) == 0, -100)


def worst(a: Tensor, b: Tensor, where: Tensor | None = None) -> float:
    """Largest difference, of the tokens in `where` (B, S) only."""
    gap = (a.detach().double() - b.detach().double()).abs()
    return float((gap if where is None else gap[where.bool()]).max())
