"""flash_attn.bert_padding: padded batches to packed tokens and back, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import Error

__all__ = [
    "index_first_axis", "index_first_axis_residual", "index_put_first_axis", "pad_input", "unpad_input",
    "unpad_input_for_concatenated_sequences",
]


def index_first_axis(input: Tensor, indices: Tensor) -> Tensor:
    """Rows `indices` (N,) of input (M, ...): (N, ...)."""
    return input.index_select(0, indices)


def index_put_first_axis(values: Tensor, indices: Tensor, first_axis_dim: int) -> Tensor:
    """(first_axis_dim, ...), zero but for rows `indices` (N,), which are values (N, ...)."""
    zeros = values.new_zeros((first_axis_dim, *values.shape[1:]))
    return zeros.index_put((indices.to(torch.int64),), values)


def index_first_axis_residual(input: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """(rows `indices` of input, input itself), for a residual connection around an unpadded layer."""
    return input.index_select(0, indices), input.view_as(input)


def unpad_input(
    hidden_states: Tensor, attention_mask: Tensor, unused_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
    """Packs the tokens of a padded batch.

    hidden_states: (B, S, ...). attention_mask: (B, S), nonzero for tokens in use. unused_mask: (B, S), nonzero for
    tokens that are allocated too (packed, but not counted in the fifth value).
    Returns five values: states (T, ...), indices int64 (T,) into the flattened batch, cu_seqlens int32 (B + 1), the
    longest sequence as an int, and the tokens in use of each sequence, int32 (B).
    """
    _check_mask(hidden_states, attention_mask, "attention_mask")
    used = attention_mask.sum(-1, dtype=torch.int32)
    allocated = attention_mask if unused_mask is None else attention_mask + unused_mask
    indices, cu_seqlens, longest = _packing(allocated.sum(-1, dtype=torch.int32), allocated)
    return hidden_states.flatten(0, 1).index_select(0, indices), indices, cu_seqlens, longest, used


def unpad_input_for_concatenated_sequences(
    hidden_states: Tensor, attention_mask_in_length: Tensor
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Packs a batch whose rows hold several short sequences each, one after the other.

    hidden_states: (B, S, ...). attention_mask_in_length: (B, S), the lengths of a row's sequences, then zeros.
    Returns states (T, ...), indices (T,), cu_seqlens int32 (sequences + 1), the longest as an int.
    """
    _check_mask(hidden_states, attention_mask_in_length, "attention_mask_in_length")
    tokens = attention_mask_in_length.sum(-1)
    present = torch.arange(attention_mask_in_length.shape[-1], device=tokens.device) < tokens[:, None]
    lengths = attention_mask_in_length[attention_mask_in_length > 0]
    indices, cu_seqlens, longest = _packing(lengths.to(torch.int32), present)
    return hidden_states.flatten(0, 1).index_select(0, indices), indices, cu_seqlens, longest


def pad_input(hidden_states: Tensor, indices: Tensor, batch: int, seqlen: int) -> Tensor:
    """Undoes unpad_input: (T, ...) back to (batch, seqlen, ...), zero where there was padding."""
    return index_put_first_axis(hidden_states, indices, batch * seqlen).reshape(batch, seqlen, *hidden_states.shape[1:])


def _packing(lengths: Tensor, present: Tensor) -> tuple[Tensor, Tensor, int]:
    indices = present.flatten().nonzero().flatten()
    cu_seqlens = torch.zeros(lengths.shape[0] + 1, dtype=torch.int32, device=lengths.device)
    cu_seqlens[1:] = lengths.cumsum(0)
    return indices, cu_seqlens, int(lengths.max()) if lengths.numel() else 0


def _check_mask(hidden_states: Tensor, mask: Tensor, name: str) -> None:
    if hidden_states.shape[:2] != mask.shape:
        expected = f"the first two dims of hidden_states, {tuple(hidden_states.shape[:2])}"
        raise Error(name, str(tuple(mask.shape)), expected)
