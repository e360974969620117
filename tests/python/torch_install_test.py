"""install(), the routing of F.scaled_dot_product_attention, torch's flags, sdpa_kernel, and the log of dispatches."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch.nn.attention import SDPBackend  # noqa: E402
from torch.nn.attention import sdpa_kernel as torch_sdpa_kernel  # noqa: E402
from torch.nn.attention.bias import causal_lower_right, causal_upper_left  # noqa: E402

import regard  # noqa: E402
import regard.torch as rt  # noqa: E402
from torch_support import worst  # noqa: E402

ORIGINAL = F.scaled_dot_product_attention


@pytest.fixture
def installed() -> Iterator[None]:
    rt.install()
    yield
    rt.uninstall()
    assert F.scaled_dot_product_attention is ORIGINAL


@pytest.fixture
def log(caplog: Any) -> Iterator[Any]:
    caplog.set_level(logging.INFO, logger="regard.torch")
    rt.log_dispatch()
    yield caplog
    rt.log_dispatch(False)


def _qkv(dtype: torch.dtype = torch.float32, head_dim: int = 16) -> list[Any]:
    g = torch.Generator().manual_seed(3)
    return [torch.randn(2, 4, 17, head_dim, generator=g).to(dtype) for _ in range(3)]


def test_install_replaces_and_uninstall_restores_any_number_of_times() -> None:
    assert not rt.installed()
    rt.install()
    rt.install()
    assert rt.installed() and F.scaled_dot_product_attention is not ORIGINAL
    rt.uninstall()
    rt.uninstall()
    assert not rt.installed() and F.scaled_dot_product_attention is ORIGINAL


def test_uninstall_refuses_to_undo_someone_elses_replacement() -> None:
    rt.install()
    ours = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda *args: None
    with pytest.raises(regard.Error, match="install"):
        rt.uninstall()
    F.scaled_dot_product_attention = ours
    rt.uninstall()


def test_an_unchanged_torch_model_runs_on_regard_in_training(installed: None, log: Any) -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    x = torch.randn(2, 9, 32)
    routed = layer(x)
    routed.sum().backward()
    grads = [p.grad.clone() for p in layer.parameters()]
    assert any("->" in r.message and "torch" not in r.message.split("->")[1] for r in log.records)
    rt.uninstall()
    layer.zero_grad()
    own = layer(x)
    own.sum().backward()
    assert worst(routed, own) < 1e-5
    for g, p in zip(grads, layer.parameters()):
        assert worst(g, p.grad) < 1e-4


def test_a_compiled_model_runs_on_regard_in_one_graph(installed: None, log: Any) -> None:
    torch._dynamo.reset()
    q, k, v = _qkv()
    compiled = torch.compile(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True) * 2,
                             fullgraph=True, backend="aot_eager")
    assert worst(compiled(q, k, v), ORIGINAL(q, k, v, is_causal=True) * 2) < 1e-5
    assert any("causal" in r.message for r in log.records)


@pytest.mark.parametrize(("make", "reason"), [
    (lambda: [t.double() for t in _qkv()], "float64"),
    (lambda: [torch.randn(1, 1, 3, 513) for _ in range(3)], "513"),
    (lambda: [torch.nested.nested_tensor([t[0], t[1]]).contiguous() for t in _qkv()], "nested|strided|jagged"),
])
def test_what_regard_cannot_stand_in_for_goes_to_torch_with_a_logged_reason(
        installed: None, log: Any, make: Any, reason: str) -> None:
    tensors = make()
    out = F.scaled_dot_product_attention(*tensors)
    assert out.shape == tensors[0].shape if not out.is_nested else True
    assert len(log.records) == 1 and log.records[0].message.startswith("scaled_dot_product_attention -> torch")
    import re
    assert re.search(reason, log.records[0].message)


def test_torchs_own_sdpa_kernel_is_honoured(installed: None, log: Any) -> None:
    q, k, v = _qkv()
    with torch_sdpa_kernel(SDPBackend.MATH):
        math = F.scaled_dot_product_attention(q, k, v)
    assert "torch" in log.records[-1].message and "FLASH_ATTENTION" in log.records[-1].message
    with torch_sdpa_kernel(SDPBackend.MATH):
        assert torch.equal(math, ORIGINAL(q, k, v))
    with torch_sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        F.scaled_dot_product_attention(q, k, v)
    assert "-> torch" not in log.records[-1].message
    with torch_sdpa_kernel(SDPBackend.CUDNN_ATTENTION), pytest.raises(RuntimeError, match="No viable backend"):
        F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("bias", [causal_upper_left(17, 17), causal_lower_right(5, 17)])
@pytest.mark.parametrize("left_to_torch", [False, True])
def test_causal_biases_work_on_both_routes(installed: None, bias: Any, left_to_torch: bool) -> None:
    q, k, v = (t.double() if left_to_torch else t for t in _qkv())
    q = q[:, :, :bias.seq_len_q]
    want = ORIGINAL(q, k, v, bias._materialize())
    assert worst(F.scaled_dot_product_attention(q, k, v, bias), want) < 1e-5


def test_double_backward_still_works_inside_torchs_math_context(installed: None) -> None:
    q, k, v = (t.requires_grad_() for t in _qkv())
    with torch_sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(q, k, v)
    dq, = torch.autograd.grad(out.sin().sum(), q, create_graph=True)
    dq.square().sum().backward()
    assert torch.isfinite(q.grad).all()


CLASSES = {SDPBackend.FLASH_ATTENTION: "cpu.", SDPBackend.EFFICIENT_ATTENTION: "cpu.scalar.",
           SDPBackend.MATH: "reference"}


def _ran(log: Any) -> str:
    return log.records[-1].message.rpartition("-> ")[2]


@pytest.mark.parametrize("backend", CLASSES)
def test_torchs_backend_names_pick_classes_of_kernels(log: Any, backend: Any) -> None:
    q, k, v = _qkv()
    with rt.sdpa_kernel(backend):
        out = rt.scaled_dot_product_attention(q, k, v)
    assert _ran(log).startswith(CLASSES[backend])
    if backend == SDPBackend.FLASH_ATTENTION:
        assert "scalar" not in _ran(log)
    assert worst(out, ORIGINAL(q, k, v)) < 1e-5


def test_order_counts_only_with_set_priority(log: Any) -> None:
    q, k, v = _qkv()
    backwards = [SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION]
    with rt.sdpa_kernel(backwards):
        rt.scaled_dot_product_attention(q, k, v)
    assert _ran(log).startswith("cpu.") and "scalar" not in _ran(log)
    with rt.sdpa_kernel(backwards, set_priority=True):
        rt.scaled_dot_product_attention(q, k, v)
    assert _ran(log) == "reference"
    rt.scaled_dot_product_attention(q, k, v)
    assert _ran(log) != "reference"


def test_names_of_regards_own_kernels_and_nesting_work(log: Any) -> None:
    q, k, v = _qkv()
    with rt.sdpa_kernel(["cpu.scalar", "reference"], set_priority=True):
        with rt.sdpa_kernel("reference"):
            rt.scaled_dot_product_attention(q, k, v)
            assert _ran(log) == "reference"
        rt.scaled_dot_product_attention(q, k, v)
        assert _ran(log).startswith("cpu.scalar")


def test_a_choice_that_cannot_run_lists_every_skipped_backend_with_its_reason() -> None:
    q, k, v = _qkv()
    with rt.sdpa_kernel(SDPBackend.CUDNN_ATTENTION), pytest.raises(regard.Error) as caught:
        rt.scaled_dot_product_attention(q, k, v)
    assert caught.value.field == "kernel" and "CUDNN_ATTENTION" in str(caught.value)
    names = ["cpu.scalar.prefill.bf16", "cpu.scalar.decode.f32"]
    with rt.sdpa_kernel([*names, SDPBackend.CUDNN_ATTENTION], set_priority=True):
        with pytest.raises(regard.Error) as caught:
            rt.scaled_dot_product_attention(q, k, v)
    lines = [line for line in str(caught.value).splitlines() if "skipped" in line]
    assert len(lines) == 3 and all(name in line for name, line in zip((*names, "CUDNN_ATTENTION"), lines))
    assert "dtype" in lines[0] or "f32" in lines[0]


def test_the_context_is_left_after_an_error_and_bad_members_are_refused() -> None:
    q, k, v = _qkv()
    with pytest.raises(ZeroDivisionError), rt.sdpa_kernel(SDPBackend.MATH):
        raise ZeroDivisionError
    for bad in ([], SDPBackend.ERROR):
        with pytest.raises(regard.Error, match="backend"), rt.sdpa_kernel(bad):
            pass
    assert worst(rt.scaled_dot_product_attention(q, k, v), ORIGINAL(q, k, v)) < 1e-5


def test_the_context_holds_in_compiled_code_and_for_gradients(log: Any) -> None:
    torch._dynamo.reset()
    q, k, v = (t.requires_grad_() for t in _qkv())
    compiled = torch.compile(lambda q, k, v: rt.scaled_dot_product_attention(q, k, v), fullgraph=True,
                             backend="aot_eager")
    with rt.sdpa_kernel(SDPBackend.MATH):
        out = compiled(q, k, v)
    assert _ran(log) == "reference"
    out.sum().backward()
    assert _ran(log) == "reference" and log.records[-1].message.startswith("backward")
    compiled(q, k, v)
    assert _ran(log) != "reference"


def test_nothing_is_logged_unless_asked(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, logger="regard.torch")
    rt.scaled_dot_product_attention(*_qkv())
    assert not [r for r in caplog.records if r.name == "regard.torch"]
