"""How each library computes a case on a GPU: WAYS maps a name to a function of (case, device) that returns a call without
arguments, whose result is out (B, Sq, Hq, D), or the gradients of q, k and v; it raises Cannot with a reason."""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_cases import Cannot

MOST_SCORES = 1 << 31  # bytes that the plain kernel may store


def _sdpa(backend):
    def way(case, device):
        case.require_dense()
        if backend == SDPBackend.MATH and case.b * case.hq * case.sq * case.skv * 4 > MOST_SCORES:
            raise Cannot("it would store more than 2 GiB of scores")
        q, k, v = (x.transpose(1, 2) for x in case.tensors(device))
        # Without a mask the query heads that share a key head go in as rows, so that K and V are read once.
        fold = case.group > 1 and case.sq == 1
        if fold:
            q = q.reshape(case.b, case.hkv, case.group, case.d)
        options = {"is_causal": case.causal and case.sq > 1, "enable_gqa": case.group > 1 and not fold}
        if options["is_causal"] and case.sq != case.skv:
            raise Cannot("its causal flag aligns the beginnings of queries and keys")

        def forward():
            with sdpa_kernel([backend]):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

        if case.phase == "backward":
            return _gradients(forward, (q, k, v))
        return lambda: forward().reshape(case.b, case.hq, case.sq, case.d).transpose(1, 2)

    return way


def _gradients(forward, inputs):
    """A call that differentiates an output made beforehand."""
    for x in inputs:
        x.requires_grad_()
    with torch.enable_grad():
        out = forward()
    dout = torch.ones_like(out)
    return lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True)


def flex(case, device):
    """FlexAttention, compiled; its causal mask as a block mask."""
    case.require_dense()
    if case.phase == "backward":
        raise Cannot("only its forward pass is measured")
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    q, k, v = (x.transpose(1, 2) for x in case.tensors(device))
    mask = None
    if case.causal and case.sq > 1:
        offset = case.skv - case.sq
        mask = create_block_mask(lambda b, h, i, j: i + offset >= j, None, None, case.sq, case.skv, device=device)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=case.group > 1).transpose(1, 2)


def flash_attn(case, device):
    """The package flash-attn, where it is installed."""
    case.require_plain_types()
    if case.ragged:
        raise Cannot("lengths are not measured with it")
    try:
        import flash_attn as package
    except ImportError:
        raise Cannot("the package flash-attn is not installed") from None
    q, k, v = case.tensors(device)
    if case.phase == "backward":
        return _gradients(lambda: package.flash_attn_func(q, k, v, causal=case.causal), (q, k, v))
    if case.page is not None:
        k, v, table, lengths = case.pages(k, v)
        return lambda: package.flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths, block_table=table,
                                                       causal=case.causal)
    if case.reads():
        return lambda: package.flash_attn_with_kvcache(q, k, v, causal=case.causal)
    return lambda: package.flash_attn_func(q, k, v, causal=case.causal)


def regard(case, device):
    """regard's Python package, where it is installed: in the same rounds as the others."""
    try:
        import regard as package
    except ImportError:
        raise Cannot("regard's Python package is not installed") from None
    case.require_plain_types()
    if case.ragged:
        raise Cannot("`regard bench` measures it")
    q, k, v = case.tensors(device)
    if case.phase == "backward":
        out, lse = package.attention(q, k, v, causal=case.causal, return_lse=True)
        dout = torch.ones_like(out)
        return lambda: package.attention_backward(dout, q, k, v, out, lse, causal=case.causal)[:3]
    if case.page is not None:
        k, v, table, lengths = case.pages(k, v)
        return lambda: package.with_kvcache(q, k, v, cache_seqlens=lengths, block_table=table, causal=case.causal)
    return lambda: package.attention(q, k, v, causal=case.causal)


WAYS = {
    "regard": regard,
    "torch-flash": _sdpa(SDPBackend.FLASH_ATTENTION),
    "torch-cudnn": _sdpa(SDPBackend.CUDNN_ATTENTION),
    "torch-efficient": _sdpa(SDPBackend.EFFICIENT_ATTENTION),
    "torch-math": _sdpa(SDPBackend.MATH),
    "torch-flex": flex,
    "flash-attn": flash_attn,
}
