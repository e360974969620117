"""A transformers model on regard: the same tokens as with eager attention, and which kernels made them.

    python examples/python/hugging_face.py [--tokens 24] [--batch 3]

The model is a small Mistral with random weights and a sliding window, so nothing is downloaded. With a model of your
own, only `register()` and `attn_implementation="regard"` are needed; see docs/transformers.md.
"""
from __future__ import annotations

import argparse
import collections
import logging
import sys

import torch
from transformers import AutoModelForCausalLM, MistralConfig

import regard.transformers


class Kernels(logging.Handler):
    """Counts the lines that regard logs, one for each attention call."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: collections.Counter[str] = collections.Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[record.getMessage()] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=24, help="new tokens for each prompt")
    parser.add_argument("--batch", type=int, default=3, help="prompts, of different lengths, padded on the left")
    options = parser.parse_args()

    regard.transformers.register()
    kernels = Kernels()
    logging.getLogger("regard.torch").addHandler(kernels)
    regard.transformers.log_dispatch()

    torch.manual_seed(0)
    config = MistralConfig(vocab_size=500, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                           num_attention_heads=8, num_key_value_heads=2, sliding_window=16, eos_token_id=None)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="regard", dtype=torch.float32).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.1)

    length = 20
    prompts = torch.randint(3, 500, (options.batch, length))
    mask = torch.ones_like(prompts)
    for row in range(options.batch):
        mask[row, :(row * 5) % length] = 0

    made = {}
    for name in ("eager", "regard"):
        model.set_attn_implementation(name)
        made[name] = model.generate(prompts, attention_mask=mask, max_new_tokens=options.tokens, do_sample=False,
                                    pad_token_id=0)[:, length:]
    print(f"first prompt goes on with {made['regard'][0, :8].tolist()} ...")
    print("what regard ran:")
    for line, calls in kernels.lines.items():
        print(f"  {calls:3d} x {line}")
    same = torch.equal(made["eager"], made["regard"])
    print(f"{made['regard'].numel()} tokens, {'the same as' if same else 'DIFFERENT from'} eager attention's")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
