"""torch.nn.functional.scaled_dot_product_attention on the CPU: its fused kernel and its plain one, over strided views
and over dense copies, with grouped heads, and with the query group folded into rows where nothing is hidden."""
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from case_data import Cannot, folded_query, heads_first, huge_copy, unfolded_output
from choose import fastest

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
MOST_SCORES = 1 << 30  # the plain kernel stores them: bytes above which it is not tried


def tensor(array, dtype):
    """A torch view of an array; for bf16 the array holds the bits."""
    if dtype == "bf16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


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
        if case.softcap:
            raise Cannot("scaled_dot_product_attention has no softcap")
        ways = []
        for backend in BACKENDS:
            if backend == "math" and case.batch * case.hq * case.sq * case.skv * 4 > MOST_SCORES:
                continue
            for layout in ("strided", "copied"):
                if case.group > 1 and not case.hides():
                    ways.append((f"{backend}, {layout}, group folded", self._way(case, backend, layout, True)))
                ways.append((f"{backend}, {layout}", self._way(case, backend, layout, False)))
        return fastest(ways)

    def _way(self, case, backend, layout, folded):
        def make():
            q_rows = folded_query(case) if folded else case.q
            # Both on huge pages: dense in (B, S, H, D) seen as (B, H, S, D), or dense in (B, H, S, D).
            arrays = [heads_first(huge_copy(a)) if layout == "strided" else huge_copy(heads_first(a))
                      for a in (q_rows, case.k, case.v)]
            q, k, v = (tensor(a, case.dtype) for a in arrays)
            mask = None
            if case.hides() and not case.plain_causal():
                mask = torch.from_numpy(case.visible())
            options = {"attn_mask": mask, "is_causal": case.plain_causal(), "scale": case.scale,
                       "enable_gqa": case.group > 1 and not folded}
            chosen = BACKENDS[backend]
            attention = torch.nn.functional.scaled_dot_product_attention

            def call():
                return attention(q, k, v, **options)

            def pinned():
                with sdpa_kernel([chosen]):
                    return call()

            def fetch(out):
                rows = to_f32(out)
                return unfolded_output(case, rows) if folded else rows

            return pinned, fetch

        return make
