"""Trains a tiny GPT on text, twice in step: attention by regard and by torch. Same seed, same data, same loss curve.

    python examples/python/tiny_gpt.py                          # a minute or two; writes tiny_gpt.json and a plot
    python examples/python/tiny_gpt.py --seq 1024 --batch 1     # longer context: attention is most of a step

The two models start from the same weights and see the same batches. Their steps alternate, so that both are timed on
the same machine in the same minute. The plot is a PNG by matplotlib where it is installed, else a plain SVG.
"""
from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regard.torch

Attention = Callable[..., Tensor]


class Block(nn.Module):
    """Attention and a feed-forward layer, each with its norm and residual."""

    def __init__(self, width: int, heads: int, attention: Attention) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        y = self.attention(q, k, v, is_causal=True)  # (batch, heads, seq, head_dim)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class TinyGpt(nn.Module):
    """A character-level decoder."""

    def __init__(self, vocabulary: int, seq: int, width: int, heads: int, layers: int, attention: Attention) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(seq, width)
        self.blocks = nn.ModuleList(Block(width, heads, attention) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def read_text(path: str | None) -> str:
    """The training text: a file, or this project's own documentation."""
    if path is not None:
        return Path(path).read_text(encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    pages = sorted(root.glob("docs/*.md")) + sorted(root.glob("*.md"))
    if not pages:
        raise SystemExit(f"no *.md under {root}; name a text with --text FILE")
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def train(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Losses and step times of both models."""
    torch.manual_seed(options.seed)
    text = read_text(options.text)
    letters = {letter: n for n, letter in enumerate(sorted(set(text)))}
    data = torch.tensor([letters[letter] for letter in text])
    if len(data) <= options.seq + 1:
        raise SystemExit(f"the text has {len(data)} characters; --seq {options.seq} needs more than {options.seq + 1}")
    first = TinyGpt(len(letters), options.seq, options.width, options.heads, options.layers,
                    F.scaled_dot_product_attention)
    second = copy.deepcopy(first)
    for block in second.blocks:
        block.attention = regard.torch.scaled_dot_product_attention
    models = {"torch": first, "regard": second}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=options.lr) for name, model in models.items()}
    record: dict[str, dict[str, list[float]]] = {name: {"loss": [], "ms": []} for name in models}
    print(f"{len(data)} characters, {len(letters)} letters, {sum(p.numel() for p in first.parameters())} parameters, "
          f"{torch.get_num_threads()} threads\n step   loss regard   loss torch     ms regard     ms torch")
    for step in range(options.steps):
        at = torch.randint(len(data) - options.seq - 1, (options.batch,))
        window = torch.stack([data[i:i + options.seq + 1] for i in at.tolist()])
        order = ("torch", "regard") if step % 2 else ("regard", "torch")
        for name in order:
            begin = time.perf_counter()
            logits = models[name](window[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
            record[name]["ms"].append(1e3 * (time.perf_counter() - begin))
            record[name]["loss"].append(loss.item())
        if step % options.every == 0 or step == options.steps - 1:
            row = [record[name][key][-1] for key in ("loss", "ms") for name in ("regard", "torch")]
            print("{:5d} {:13.5f} {:12.5f} {:13.1f} {:12.1f}".format(step, *row), flush=True)
    return record


def plot(record: dict[str, dict[str, list[float]]], path: Path) -> Path:
    """The two loss curves: PNG with matplotlib, else SVG. Returns the file."""
    try:
        from matplotlib import pyplot
    except ImportError:
        path = path.with_suffix(".svg")
        path.write_text(svg(record), encoding="utf-8")
        return path
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for (name, curves), style in zip(record.items(), ("-", "--")):
        axes.plot(curves["loss"], style, label=f"{name}, {statistics.median(curves['ms']):.1f} ms a step")
    axes.set(xlabel="step", ylabel="loss", title="tiny GPT, the same training twice")
    axes.legend()
    figure.savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")
    return path.with_suffix(".png")


def svg(record: dict[str, dict[str, list[float]]]) -> str:
    """The same plot without matplotlib."""
    width, height, left, bottom = 640, 360, 50, 30
    losses = [loss for curves in record.values() for loss in curves["loss"]]
    low, high = min(losses), max(max(losses), min(losses) + 1e-9)
    lines = []
    for n, ((name, curves), look) in enumerate(zip(record.items(), (("#888", ""), ("#c33", "6 4")))):
        last = max(len(curves["loss"]) - 1, 1)
        points = " ".join(f"{left + (width - left - 10) * i / last:.1f},"
                          f"{10 + (height - bottom - 10) * (high - loss) / (high - low):.1f}"
                          for i, loss in enumerate(curves["loss"]))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{look[0]}" stroke-width="2" '
                     f'stroke-dasharray="{look[1]}"/><text x="{width - 250}" y="{30 + 20 * n}" fill="{look[0]}">'
                     f'{name}, {statistics.median(curves["ms"]):.1f} ms a step</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
            f'font-size="13"><rect width="100%" height="100%" fill="white"/>{"".join(lines)}'
            f'<text x="4" y="16">{high:.2f}</text><text x="4" y="{height - bottom}">{low:.2f}</text>'
            f'<text x="{left}" y="{height - 8}">loss over {len(losses) // 2} steps</text></svg>\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", help="training text; default: this project's documentation")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=10, help="steps from one printed line to the next")
    parser.add_argument("--out", default="tiny_gpt", help="path of the results, without suffix")
    options = parser.parse_args()
    record = train(options)
    gap = max(abs(a - b) for a, b in zip(record["regard"]["loss"], record["torch"]["loss"]))
    medians = {name: statistics.median(curves["ms"]) for name, curves in record.items()}
    out = Path(options.out)
    out.with_suffix(".json").write_text(json.dumps({**record, "largest_gap": gap, "median_ms": medians}), "utf-8")
    print(f"largest gap between the losses {gap:.2e}; median step: regard {medians['regard']:.1f} ms, "
          f"torch {medians['torch']:.1f} ms ({medians['torch'] / medians['regard']:.2f}x)\nplot: {plot(record, out)}")


if __name__ == "__main__":
    main()
