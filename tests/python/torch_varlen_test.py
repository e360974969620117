"""regard.torch.varlen_attn in both of torch's spellings. torch has no such kernel on the CPU: f64 formulas decide."""
from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import regard  # noqa: E402
import regard.torch as rt  # noqa: E402
from torch_support import OUT_BOUND, plain_attention, qkv, starts, worst  # noqa: E402

LENGTHS_Q, LENGTHS_KV = (5, 1, 17, 0, 3), (9, 4, 17, 2, 0)
CU_Q, CU_KV = starts(*LENGTHS_Q), starts(*LENGTHS_KV)


def _packed(heads_kv: int = 4, grad: bool = False) -> list[Any]:
    q, _, _ = qkv(1, sum(LENGTHS_Q), 1, 4, heads_kv, 16)
    _, k, v = qkv(1, 1, sum(LENGTHS_KV), 4, heads_kv, 16, seed=2)
    return [t[0].detach().requires_grad_(grad) for t in (q, k, v)]


def _want(q: Any, k: Any, v: Any, used: tuple[int, ...] = LENGTHS_KV, **options: Any) -> tuple[Any, Any]:
    parts = []
    for b, n in enumerate(used):
        rows, keys = slice(CU_Q[b], CU_Q[b + 1]), slice(CU_KV[b], CU_KV[b] + n)
        parts.append(plain_attention(q[None, rows], k[None, keys], v[None, keys], **options))
    return torch.cat([o[0] for o, _ in parts]), torch.cat([s[0] for _, s in parts], 1)


def _call(q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> Any:
    return rt.varlen_attn(q, k, v, CU_Q, CU_KV, max(LENGTHS_Q), max(LENGTHS_KV), *args, **kwargs)


def test_full_attention_and_lse_equal_each_sequence_alone() -> None:
    q, k, v = _packed()
    out, lse = _call(q, k, v, return_aux=rt.AuxRequest(lse=True))
    want, want_lse = _want(q, k, v)
    assert worst(out, want) < OUT_BOUND[torch.float32] and worst(lse, want_lse) < 1e-5
    assert lse.shape == (4, sum(LENGTHS_Q))
    assert torch.equal(_call(q, k, v), out) and torch.equal(_call(q, k, v, return_aux=rt.AuxRequest()), out)


def test_torchs_own_aux_request_is_taken() -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    out, lse = _call(*_packed(), return_aux=varlen.AuxRequest(lse=True))
    assert out.shape == (sum(LENGTHS_Q), 4, 16) and lse.dtype == torch.float32


def test_causal_has_four_spellings_of_one_meaning_from_the_bottom_right() -> None:
    q, k, v = _packed()
    want, _ = _want(q, k, v, causal=True)
    calls = [_call(q, k, v, True), _call(q, k, v, is_causal=True), _call(q, k, v, window_size=(-1, 0)),
             _call(q, k, v, window_size=[-1, 0])]
    assert worst(calls[0], want) < OUT_BOUND[torch.float32]
    assert all(worst(c, want) < OUT_BOUND[torch.float32] for c in calls)


@pytest.mark.parametrize("window", [(3, 0), (2, 2), (0, -1), (-1, -1)])
def test_windows_are_open_where_negative(window: tuple[int, int]) -> None:
    q, k, v = _packed()
    sides = (None if window[0] < 0 else window[0], None if window[1] < 0 else window[1])
    assert worst(_call(q, k, v, window_size=window), _want(q, k, v, window=sides)[0]) < OUT_BOUND[torch.float32]


def test_grouped_heads_need_enable_gqa() -> None:
    q, k, v = _packed(heads_kv=2)
    assert worst(_call(q, k, v, enable_gqa=True, scale=0.5), _want(q, k, v, scale=0.5)[0]) < OUT_BOUND[torch.float32]
    with pytest.raises(regard.Error, match="enable_gqa"):
        _call(q, k, v)


def test_gradients_equal_the_formula() -> None:
    tensors = _packed(grad=True)
    weights = torch.randn(sum(LENGTHS_Q), 4, 16)
    got = torch.autograd.grad((_call(*tensors, window_size=(-1, 0)) * weights).sum(), tensors)
    expected = torch.autograd.grad((_want(*tensors, causal=True)[0] * weights).sum(), tensors)
    for g, e in zip(got, expected):
        assert worst(g, e) < 1e-4


def test_seqused_k_shortens_the_keys() -> None:
    q, k, v = _packed()
    used = (7, 4, 16, 0, 0)
    out = _call(q, k, v, seqused_k=torch.tensor(used, dtype=torch.int32))
    assert worst(out, _want(q, k, v, used=used)[0]) < OUT_BOUND[torch.float32]


def test_pages_of_any_size_equal_packed_keys() -> None:
    q, k, v = _packed(heads_kv=2)
    for page in (1, 4):
        counts = [-(-n // page) for n in LENGTHS_KV]
        pool_k, pool_v = torch.zeros(sum(counts), page, 2, 16), torch.zeros(sum(counts), page, 2, 16)
        order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(6)).tolist()
        table = torch.full((len(counts), max(counts)), -1, dtype=torch.int32)
        for b, n in enumerate(LENGTHS_KV):
            for j in range(n):
                if j % page == 0:
                    table[b, j // page] = order.pop()
                at = (int(table[b, j // page]), j % page)
                pool_k[at], pool_v[at] = k[CU_KV[b] + j], v[CU_KV[b] + j]
        out = rt.varlen_attn(q, pool_k, pool_v, CU_Q, None, 17, 17, window_size=(-1, 0), enable_gqa=True,
                             seqused_k=torch.tensor(LENGTHS_KV, dtype=torch.int32), block_table=table, num_splits=1)
        assert torch.equal(out, _call(q, k, v, is_causal=True, enable_gqa=True))


def test_the_out_variant_writes_and_returns_out() -> None:
    q, k, v = _packed()
    out = torch.full_like(q, 9.0)
    args = (CU_Q, CU_KV, max(LENGTHS_Q), max(LENGTHS_KV))
    got, lse = rt.varlen_attn_out(out, q, k, v, *args, window_size=(-1, 0), return_aux=rt.AuxRequest(lse=True))
    assert got is out and torch.equal(out, _call(q, k, v, is_causal=True)) and lse.shape == (4, sum(LENGTHS_Q))
    assert rt.varlen_attn_out(out, q, k, v, *args) is out and torch.equal(out, _call(q, k, v))


def test_missing_arguments_are_named() -> None:
    q, k, v = _packed()
    with pytest.raises(regard.Error, match="cu_seq_k"):
        rt.varlen_attn(q, k, v, CU_Q, None, 17, 17)
    with pytest.raises(regard.Error, match="seqused_k"):
        rt.varlen_attn(q, k[None], v[None], CU_Q, None, 17, 17, block_table=torch.zeros(5, 1, dtype=torch.int32))
    with pytest.raises(regard.Error, match="window_size"):
        _call(q, k, v, window_size=(1,))
