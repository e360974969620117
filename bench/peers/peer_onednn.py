"""oneDNN Graph's attention, in the build that torch carries: torch.jit hands matmul, scale, mask, softmax, matmul to
oneDNN as one partition. K and V heads are repeated before timing, or the query group is folded into rows; in decode,
where repeated keys would only be more to read, always the latter."""
import math
import re

import numpy as np
import torch

from case_data import Cannot, fold_group, heads_first, huge_copy, repeated_heads, unfold_group
from choose import fastest
from peer_torch import TYPES, tensor, to_f32

FUSED = "prim::oneDNNFusionGuard"


def attention(divisor, masked):
    """The function to trace; the divisor is a number in it, not an input, or the pattern does not match."""
    def attend(q, k, v):
        return torch.matmul(torch.softmax(torch.matmul(q, k.transpose(-1, -2)) / divisor, -1), v)

    def attend_masked(q, k, v, mask):
        return torch.matmul(torch.softmax(torch.matmul(q, k.transpose(-1, -2)) / divisor + mask, -1), v)

    return attend_masked if masked else attend


class OneDnnGraph:
    def __init__(self, threads):
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        torch.jit.enable_onednn_fusion(True)

    def version(self):
        found = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
        return f"oneDNN {found[1] if found else 'of unknown version'} in torch {torch.__version__}"

    def prepare(self, case):
        if case.softcap:
            raise Cannot("its attention pattern has no softcap")
        if not case.scale:
            raise Cannot("its attention pattern divides by 1 / scale, and the scale is 0")
        ways = [("group folded", self._way(case, True))] if case.group > 1 else []
        if case.group == 1 or not case.is_decode():
            ways.append(("heads repeated" if case.group > 1 else "heads as they are", self._way(case, False)))
        return fastest(ways)

    def _way(self, case, folded):
        def make():
            if folded:
                arrays = [huge_copy(heads_first(a)) for a in (fold_group(case, case.q), case.k, case.v)]
            else:
                arrays = [huge_copy(heads_first(case.q))] + [repeated_heads(a, case.group) for a in (case.k, case.v)]
            q, k, v = (tensor(a, case.dtype) for a in arrays)
            inputs = [q, k, v]
            if case.hides():
                hidden = np.where(case.visible(), 0, -math.inf).astype(np.float32)
                mask = torch.from_numpy(np.tile(hidden, (case.group, 1)) if folded else hidden)
                inputs.append(mask.to(TYPES[case.dtype])[None, None])
            traced = torch.jit.trace(attention(1 / case.scale, case.hides()), tuple(inputs), check_trace=False)
            for _ in range(2):  # the first call profiles, the second compiles
                traced(*inputs)
            kinds = [node.kind() for node in torch.jit.last_executed_optimized_graph().nodes()]
            if FUSED not in kinds:
                raise Cannot(f"torch.jit does not hand {case.dtype} attention to oneDNN")

            def call():
                return traced(*inputs)

            def fetch(out):
                rows = to_f32(out)
                return unfold_group(case, rows) if folded else rows

            return call, fetch

        return make
