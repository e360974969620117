"""Causal attention with grouped heads in NumPy: 32 query heads read 8 key/value heads, 128 tokens, head dim 64."""

import numpy as np

import regard

rng = np.random.default_rng(0)
q = rng.standard_normal((1, 128, 32, 64), dtype=np.float32)  # (batch, tokens, heads, head dim)
k = rng.standard_normal((1, 128, 8, 64), dtype=np.float32)
v = rng.standard_normal((1, 128, 8, 64), dtype=np.float32)

out, lse = regard.attention(q, k, v, causal=True, return_lse=True)
print("out", out.shape, "lse", lse.shape)

# Decode the next token over a cache: the new key and value are written into it, then attended.
cache = np.zeros((2, 1, 256, 8, 64), np.float32)
cache[0, :, :128], cache[1, :, :128] = k, v
token = rng.standard_normal((1, 1, 32, 64), dtype=np.float32)
new = rng.standard_normal((2, 1, 1, 8, 64), dtype=np.float32)
step = regard.with_kvcache(token, cache[0], cache[1], new[0], new[1], cache_seqlens=[128], causal=True)
print("step", step.shape, "stored", bool((cache[0, 0, 128] == new[0, 0, 0]).all()))

# Which kernel ran, and why no other.
why = regard.explain(q, k, v, causal=True)
print("kernel", why.chosen)
for rejection in why.rejected[:2]:
    print("not", rejection.kernel, "because", rejection.reason)

# Gradients, deterministic, recomputed from lse.
gradients = regard.attention_backward(np.ones_like(out), q, k, v, out, lse, causal=True, grad_dtype="f32")
print("dq", gradients.dq.shape, "dk", gradients.dk.shape)

try:
    regard.attention(q[:, :, :31], k, v)
except regard.Error as error:
    print("refused:", error)
