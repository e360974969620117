"""What the Python benchmarks share: turn-about timing, rows held against goals, JSON that names where they ran."""

from __future__ import annotations

import json
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import regard


def cpu_name() -> str:
    """The processor's name from /proc/cpuinfo, else the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def commit() -> str:
    """The commit of the tree that this file lies in, "-dirty" added where files differ from it."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=9", "--exclude=*"],
                              cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def turn_about(calls: dict[str, Callable[[], Any]], rounds: int, min_seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, taken turn about in changing order after one unmeasured round.

    Rounds go on until both `rounds` are done and `min_seconds` are spent.
    """
    names = list(calls)
    for name in names:
        calls[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    while len(times[names[0]]) < rounds or time.perf_counter() - begin < min_seconds:
        for name in names:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
        names.reverse()
    return times


@dataclass
class Row:
    """One measured case. `value` is what the goal is about: a ratio to reach, or microseconds to stay under."""

    case: str
    value: float
    goal: float | None = None
    less_is_better: bool = False
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.less_is_better else self.value >= self.goal


def ratio_row(case: str, times: dict[str, list[float]], ours: str, theirs: str, goal: float | None,
              **figures: float) -> Row:
    """How many times faster `ours` is than `theirs`: the median of the rounds' own ratios, with its quartiles."""
    ratios = sorted(b / a for a, b in zip(times[ours], times[theirs]))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    medians = {f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()}
    return Row(case, statistics.median(ratios), goal,
               figures={**medians, "ratio_low": low, "ratio_high": high, "rounds": len(ratios), **figures})


def show(rows: list[Row], unit: str) -> None:
    """The table on standard output: case, figures, value, goal, and whether it is met."""
    for row in rows:
        times = "  ".join(f"{name[:-3]} {value:.3f} {name[-2:]}" for name, value in row.figures.items()
                          if name.endswith(("_ms", "_us")))
        goal = "" if row.goal is None else (f"   goal {'<=' if row.less_is_better else '>='} {row.goal:g}: "
                                            f"{'met' if row.met else 'missed'}")
        limit = f"  (at the roof {row.figures['ratio_at_roof']:.2f})" if "ratio_at_roof" in row.figures else ""
        print(f"{row.case:<62} {row.value:7.2f} {unit}{goal}{limit}   {times}".rstrip(), flush=True)


def write(path: str, command: str, threads: int, rows: list[Row], **more: Any) -> None:
    """The rows as JSON with machine, versions and commit."""
    versions = {"regard": regard.__version__, "python": platform.python_version()}
    try:
        import torch
    except ImportError:
        pass
    else:
        versions["torch"] = torch.__version__
    result = {"machine": {"cpu": cpu_name(), "system": platform.platform(), "threads": threads}, "versions": versions,
              "commit": commit(), "command": command, **more,
              "rows": [{**asdict(row), "met": row.met} for row in rows]}
    Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def finite(value: float) -> float:
    """`value`, or an exception: a comparison that met NaN must not pass for a small error."""
    if not math.isfinite(value):
        raise SystemExit(f"a result is {value}")
    return value
