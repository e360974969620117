"""torch.nn.functional.scaled_dot_product_attention on the CPU, and its gradients: its fused kernel and its plain one,
over strided views and over dense copies, with grouped heads, and with the query group folded into rows where nothing
is hidden."""
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from case_data import Cannot, fold_group, heads_first, huge_copy, unfold_group
from choose import fastest

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
MOST_SCORES = 1 << 30  # the plain kernel stores them: bytes above which it is not tried


def tensor(array, dtype):
    """A torch view of an array; for bf16 the array holds the bits."""
    if dtype == "bf16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def arranged(array, layout, dtype):
    """(B, S, H, D) on huge pages, as (B, H, S, D): strided, or dense."""
    return tensor(heads_first(huge_copy(array)) if layout == "strided" else huge_copy(heads_first(array)), dtype)


def to_f32(out):
    """(B, H, S, D) of any type as f32 (B, S, H, D)."""
    return out.transpose(1, 2).float().numpy()


class TorchSdpa:
    def __init__(self, threads):
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def version(self):
        return "torch " + torch.__version__

    def prepare(self, case):
        return fastest(self._ways(case, self._way))

    def prepare_backward(self, case):
        """The gradients of q, k and v alone; the forward pass is done beforehand."""
        return fastest(self._ways(case, self._backward_way))

    def _ways(self, case, way):
        if case.softcap:
            raise Cannot("scaled_dot_product_attention has no softcap")
        ways = []
        for backend in BACKENDS:
            if backend == "math" and case.batch * case.hq * case.sq * case.skv * 4 > MOST_SCORES:
                continue
            for layout in ("strided", "copied"):
                if case.group > 1 and not case.hides():
                    ways.append((f"{backend}, {layout}, group folded", way(case, backend, layout, True)))
                ways.append((f"{backend}, {layout}", way(case, backend, layout, False)))
        return ways

    def _attention(self, case, layout, folded):
        """q, k, v as torch wants them, and the call on them."""
        arrays = (fold_group(case, case.q) if folded else case.q, case.k, case.v)
        q, k, v = (arranged(array, layout, case.dtype) for array in arrays)
        mask = None
        if case.hides() and not case.plain_causal():
            mask = torch.from_numpy(case.visible())
        options = {"attn_mask": mask, "is_causal": case.plain_causal(), "scale": case.scale,
                   "enable_gqa": case.group > 1 and not folded}
        attention = torch.nn.functional.scaled_dot_product_attention
        return (q, k, v), lambda: attention(q, k, v, **options)

    def _way(self, case, backend, layout, folded):
        def make():
            _, call = self._attention(case, layout, folded)
            chosen = BACKENDS[backend]

            def pinned():
                with sdpa_kernel([chosen]):
                    return call()

            def fetch(out):
                rows = to_f32(out)
                return unfold_group(case, rows) if folded else rows

            return pinned, fetch

        return make

    def _backward_way(self, case, backend, layout, folded):
        def make():
            inputs, forward = self._attention(case, layout, folded)
            dout = arranged(fold_group(case, case.dout) if folded else case.dout, layout, case.dout_dtype)
            for tensor_in in inputs:
                tensor_in.requires_grad_()
            with torch.enable_grad(), sdpa_kernel([BACKENDS[backend]]):
                out = forward()
            dout = dout.to(out.dtype)

            def call():
                return torch.autograd.grad(out, inputs, dout, retain_graph=True)

            def fetch(gradients):
                dq, dk, dv = (to_f32(g) for g in gradients)
                return [unfold_group(case, dq) if folded else dq, dk, dv]

            return call, fetch

        return make
