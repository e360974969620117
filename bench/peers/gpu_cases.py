"""A case of `regard bench` as torch tensors on a GPU, and what is counted of it.

    case = GpuCase("prefill b=2 sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal")

Values are random and the same for every library; nothing that is timed depends on them.
"""
import torch

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
KNOWN = {"b", "sq", "skv", "hq", "hkv", "d", "dtype", "page", "placement", "kv", "lens", "seed"}


class Cannot(Exception):
    """Why a library does not run a case; one line."""


class GpuCase:
    def __init__(self, text):
        self.text = text
        self.phase, *words = text.split()
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        flags = [word for word in words if "=" not in word]
        unknown = sorted(set(fields) - KNOWN) + sorted(set(flags) - {"causal"})
        if unknown:
            raise ValueError(f"{text}: unknown words {', '.join(unknown)}")
        self.causal = "causal" in flags
        self.b, self.sq, self.skv = (int(fields.get(name, 1)) for name in ("b", "sq", "skv"))
        self.hq, self.hkv, self.d = (int(fields[name]) for name in ("hq", "hkv", "d"))
        self.dtype = TYPES[fields["dtype"]]
        self.page = int(fields["page"]) if "page" in fields else None
        self.fp8_kv = "kv" in fields
        self.ragged = "lens" in fields

    @property
    def group(self):
        return self.hq // self.hkv

    def pairs(self):
        """Visible (query, key) pairs of all heads; the ends of queries and keys are aligned."""
        first = self.skv - self.sq + 1 if self.causal else self.skv
        return self.b * self.hq * (first + self.skv) * self.sq // 2 if self.causal else self.b * self.hq * self.sq * first

    def flops(self):
        """Four operations a visible pair and channel forward, ten for the five products of the gradients."""
        return (10 if self.phase == "backward" else 4) * self.pairs() * self.d

    def kv_bytes(self):
        """Bytes of K and V, each once."""
        return 2 * self.b * self.skv * self.hkv * self.d * (1 if self.fp8_kv else self.dtype.itemsize)

    def reads(self):
        """Decode is held against bandwidth, the rest against arithmetic."""
        return self.phase == "decode"

    def require_dense(self):
        """For libraries without tables of pages and lengths."""
        if self.page is not None:
            raise Cannot("it reads no pages")
        if self.ragged:
            raise Cannot("it takes no lengths of sequences")
        self.require_plain_types()

    def require_plain_types(self):
        if self.fp8_kv:
            raise Cannot("it reads no fp8 keys beside wider queries")

    def tensors(self, device):
        """q (B, Sq, Hq, D), k and v (B, Skv, Hkv, D)."""
        generator = torch.Generator(device).manual_seed(1)

        def normal(rows, heads):
            return torch.randn(self.b, rows, heads, self.d, generator=generator, device=device, dtype=self.dtype)

        return normal(self.sq, self.hq), normal(self.skv, self.hkv), normal(self.skv, self.hkv)

    def pages(self, k, v):
        """k and v as pages in random order, (pages, page, Hkv, D), the table (B, pages of a sequence), lengths (B)."""
        each = -(-self.skv // self.page)
        order = torch.randperm(self.b * each, generator=torch.Generator("cpu").manual_seed(1)).to(k.device)
        table = order.reshape(self.b, each).to(torch.int32)

        def scattered(x):
            padded = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, each * self.page - self.skv))
            pages = torch.empty(self.b * each, self.page, self.hkv, self.d, dtype=x.dtype, device=x.device)
            pages[order] = padded.reshape(self.b * each, self.page, self.hkv, self.d)
            return pages

        lengths = torch.full((self.b,), self.skv, dtype=torch.int32, device=k.device)
        return scattered(k), scattered(v), table, lengths
