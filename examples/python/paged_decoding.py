"""Decoding over a paged KV cache: sequences of different lengths share one pool of small pages, and one of them leaves.

    python examples/python/paged_decoding.py
    python examples/python/paged_decoding.py --prompts 40 3 17 --steps 24 --page 8

Each step appends one key and value a sequence and attends, both in one call of `regard.with_kvcache`. A page is taken
from the pool when a sequence grows into it; half way, the first sequence ends, its pages go back, and a new one starts
in them. The pool is drawn whenever that happens. Beside it runs the same decoding over a dense cache, a row of full
length for every sequence: the numbers are the same to the last bit, since in regard a row depends on its own keys alone.
Needs NumPy, nothing else.
"""

from __future__ import annotations

import argparse

import numpy as np

import regard

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Pool:
    """Pages of keys and values, (pages, page size, heads, head dim), and the numbers of those that are free."""

    def __init__(self, pages: int, page: int, heads: int, width: int) -> None:
        self.k, self.v = (np.zeros((pages, page, heads, width), np.float32) for _ in range(2))
        self.free = list(range(pages))
        self.page = page

    def take(self) -> int:
        """A free page. Ends the program where there is none; a server would let a sequence wait."""
        if not self.free:
            raise SystemExit(f"all {len(self.k)} pages of {self.page} keys are in use; give --pages a larger number")
        return self.free.pop(0)


class Sequence:
    """The pages of one sequence in order, how many keys they hold, and its row of the dense cache."""

    def __init__(self, name: str, row: int) -> None:
        self.name, self.row = name, row
        self.pages: list[int] = []
        self.length = 0

    def grow(self, tokens: int, pool: Pool) -> bool:
        """Takes the pages that so many more tokens need; True if it took any."""
        missing = -(-(self.length + tokens) // pool.page) - len(self.pages)
        self.pages += [pool.take() for _ in range(missing)]
        return missing > 0


def block_table(batch: list[Sequence]) -> np.ndarray:
    """int32 (sequences, most pages); entries behind a sequence's own pages are never read."""
    table = np.zeros((len(batch), max(len(s.pages) for s in batch)), np.int32)
    for row, sequence in zip(table, batch):
        row[:len(sequence.pages)] = sequence.pages
    return table


def draw(batch: list[Sequence], pool: Pool, title: str) -> None:
    """The tables and the pool as text: one cell a page, a letter for each key in it, dots for free slots."""
    owner = ["." * pool.page] * len(pool.k)
    print(title)
    for s in batch:
        print(f"  {s.name}: {s.length:3d} keys in pages {' '.join(str(p) for p in s.pages)}")
        for n, p in enumerate(s.pages):
            keys = min(pool.page, s.length - n * pool.page)
            owner[p] = s.name * keys + "." * (pool.page - keys)
    in_line = max(1, 80 // (pool.page + 1))
    for first in range(0, len(owner), in_line):
        print("  |" + "|".join(owner[first:first + in_line]) + "|")


def append(batch: list[Sequence], pool: Pool, dense: tuple[np.ndarray, np.ndarray], q: np.ndarray, k: np.ndarray,
           v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Appends k, v (sequences, tokens, kv heads, width) and attends with q: the results of pages and of dense rows."""
    lengths = [s.length for s in batch]
    paged = regard.with_kvcache(q, pool.k, pool.v, k, v, cache_seqlens=lengths, block_table=block_table(batch),
                                causal=True)
    rows = regard.with_kvcache(q, *dense, k, v, cache_seqlens=lengths, cache_batch_idx=[s.row for s in batch],
                               causal=True)
    for s in batch:
        s.length += k.shape[1]
    return paged, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[13, 3, 8], help="keys of each prompt")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--page", type=int, default=4, help="keys in a page; any number from 1 on")
    parser.add_argument("--pages", type=int, default=32)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--heads-kv", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    if len(options.prompts) >= len(LETTERS):
        parser.error(f"at most {len(LETTERS) - 1} prompts")
    rng = np.random.default_rng(1)
    pool = Pool(options.pages, options.page, options.heads_kv, options.width)
    capacity = max(options.prompts) + options.steps
    shape = (len(options.prompts) + 1, capacity, options.heads_kv, options.width)
    dense = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    widest = 0.0

    def random(sequences: int, tokens: int, heads: int) -> np.ndarray:
        return rng.standard_normal((sequences, tokens, heads, options.width), np.float32)

    def run(batch: list[Sequence], tokens: int) -> bool:
        nonlocal widest
        took = [s.grow(tokens, pool) for s in batch]
        inputs = [random(len(batch), tokens, heads) for heads in (options.heads, options.heads_kv, options.heads_kv)]
        paged, rows = append(batch, pool, dense, *inputs)
        widest = max(widest, float(np.abs(paged - rows).max(initial=0.0)))
        return any(took)

    batch = [Sequence(LETTERS[n], n) for n in range(len(options.prompts))]
    for sequence, tokens in zip(batch, options.prompts):
        run([sequence], tokens)
    draw(batch, pool, "the prompts")
    for step in range(1, options.steps + 1):
        title = f"step {step}"
        if step == options.steps // 2 + 1:
            gone = batch.pop(0)
            pool.free = sorted(pool.free + gone.pages)
            new = Sequence(LETTERS[len(options.prompts)], len(options.prompts))
            run([new], options.prompts[0])
            batch.append(new)
            title += f": {gone.name} has left, {new.name} begins in its pages"
        grew = run(batch, 1)
        if grew or ":" in title:
            draw(batch, pool, title)
    held = pool.page * (options.pages - len(pool.free))
    print(f"{sum(s.length for s in batch)} keys in {held} slots of pages; dense rows hold {shape[0] * capacity} slots")
    print(f"largest difference between pages and dense rows: {widest:g}")


if __name__ == "__main__":
    main()
