"""Tensors on a GPU: every test of cuda_calls.py in a process of its own, on an emulated GPU, where the fake driver is built;
and what needs no GPU at all: pretended ones, and torch's ops on fake tensors."""

import glob
import os
import subprocess
import sys

import pytest

import regard

HERE = os.path.dirname(os.path.abspath(__file__))
BUILDS = os.path.join(HERE, "..", "..", "build")
CASE = "decode b=16 sq=1 skv=32768 hq=32 hkv=8 d=128 dtype=bf16 page=16"


def fake_library(name):
    """Of the release build, else of the newest plain one; a sanitizer's would need its runtime."""
    for tree in ("release", "*"):
        found = glob.glob(os.path.join(BUILDS, tree, "tests", "emulator", f"libregard_fake_{name}.so"))
        found = [path for path in found if "san" not in path.split(os.sep)[-4]]
        if found:
            return max(found, key=os.path.getmtime)
    return None


def test_calls_on_an_emulated_gpu(tmp_path):
    cuda, nvrtc = fake_library("cuda"), fake_library("nvrtc")
    if cuda is None or nvrtc is None:
        pytest.skip("the fake driver is not built: ninja regard_fake_cuda regard_fake_nvrtc")
    environment = {**os.environ, "REGARD_LIBCUDA": cuda, "REGARD_NVRTC": nvrtc, "FAKE_CUDA_GPUS": "A100",
                   "REGARD_CUDA_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", os.path.join(HERE, "cuda_calls.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    print(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("device, chosen", [("A100", "cuda.sm80.decode.bf16"), ("h100", "cuda.sm80.decode.bf16"),
                                            ("T4", "cuda.generic.decode.bf16"), ("cpu", "cpu.")])
def test_explain_for_a_pretended_gpu(device, chosen):
    explanation = regard.explain(CASE, device=device)
    assert explanation.chosen.startswith(chosen)
    assert any(r.kernel.startswith("cuda." if device == "cpu" else "cpu.") for r in explanation.rejected)


def test_unknown_devices_are_refused_with_those_known():
    with pytest.raises(regard.Error) as caught:
        regard.explain(CASE, device="Voodoo 2")
    assert caught.value.field == "device" and "A100" in caught.value.expected and "cuda:N" in caught.value.expected
    with pytest.raises(regard.Error):
        regard.explain(CASE, device="cuda:x")
    with pytest.raises(regard.Error):
        regard.explain(CASE, device="A100", isa="avx2")


def test_bounds_of_lengths_change_nothing_on_the_cpu():
    np = pytest.importorskip("numpy")
    q = np.random.default_rng(1).standard_normal((6, 2, 16), np.float32)
    want = regard.varlen_attention(q, q, q, [0, 2, 6], [0, 2, 6])
    assert np.array_equal(want, regard.varlen_attention(q, q, q, [0, 2, 6], [0, 2, 6], max_seqlen_q=4, max_seqlen_kv=4))


class TestTorchOps:
    torch = pytest.importorskip("torch")

    def test_every_op_is_registered_for_cuda(self):
        import regard.torch  # noqa: F401
        has = self.torch._C._dispatch_has_kernel_for_dispatch_key
        for name in ("attention_forward", "varlen_forward", "attention_backward", "with_kvcache"):
            for key in ("CPU", "CUDA"):
                assert has(f"regard::{name}", key), (name, key)

    def test_fake_tensors_on_cuda_give_fake_results_there(self):
        import regard.torch as rt
        from regard.torch._options import pack
        from torch._subclasses.fake_tensor import FakeTensorMode
        with FakeTensorMode():
            q, k, v = (self.torch.empty(2, n, h, 64, device="cuda", dtype=self.torch.bfloat16)
                       for n, h in ((5, 4), (7, 2), (7, 2)))
            out, lse = rt.attention(q, k, v, causal=True, return_lse=True)
            assert out.device.type == "cuda" and out.shape == (2, 5, 4, 64) and lse.shape == (2, 4, 5)
            gradients = self.torch.ops.regard.attention_backward(out, None, q, k, v, out, lse, None, None, *pack(causal=True),
                                                                 False, False)
            assert [g.shape for g in gradients[:3]] == [q.shape, k.shape, v.shape]
            assert {g.device.type for g in gradients} == {"cuda"}
            starts = self.torch.empty(3, device="cuda", dtype=self.torch.int32)
            q, k = (self.torch.empty(n, h, 64, device="cuda", dtype=self.torch.bfloat16) for n, h in ((5, 4), (7, 2)))
            packed = rt.varlen_attention(q, k, k, starts, starts, max_seqlen_q=5, max_seqlen_kv=7)
            assert packed.shape == (5, 4, 64) and packed.device.type == "cuda"

    def test_backends_name_the_kernels_of_both_devices(self):
        from regard.torch import _backends
        from torch.nn.attention import SDPBackend
        flash = _backends.patterns_of(SDPBackend.FLASH_ATTENTION)
        assert "cuda.sm80" in flash and "cpu.avx2" in flash and not {"cuda.generic", "cpu.scalar"} & set(flash)
        assert _backends.patterns_of(SDPBackend.EFFICIENT_ATTENTION) == ("cpu.scalar", "cuda.generic")

    def test_backward_of_a_forward_on_tensor_cores_may_be_any_cuda_kernel(self):
        from regard.torch import _call
        assert _call.backward_kernels(["cuda.sm80", "cuda.generic.prefill.f32", "cpu.avx2.prefill"]) == ["cuda", "cpu.avx2"]
