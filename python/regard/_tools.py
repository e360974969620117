"""explain, list_kernels, check and bench: what regard would do, whether it is right, how fast it is."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any, Callable, Sequence

from regard import _core
from regard._errors import UsageError


@dataclass(frozen=True)
class Rejection:
    """A kernel that was not chosen.

    Attributes:
        kernel: its name.
        reason: why, for example "seq_q 1, needs >= 16".
        remedy: what can be done about it; may be empty.
        able: it could run, and lost by cost or order.
    """

    kernel: str
    reason: str
    remedy: str
    able: bool


class Explanation:
    """What regard.explain returns. Printing it shows the text; a notebook shows a table.

    Attributes:
        problem: the problem in its one-line form.
        chosen: name of the kernel that runs.
        numerics: its numerics id; kernels with equal ids give equal bits.
        rejected: every other kernel, in table order.
        text: the lines that `regard explain` prints.
        json: the same as a dictionary.
    """

    def __init__(self, text: str, json_text: str) -> None:
        self.text: str = text
        self.json: dict[str, Any] = json.loads(json_text)
        self.problem: str = self.json["problem"]
        self.chosen: str = self.json["chosen"]["kernel"]
        self.numerics: str = self.json["chosen"]["numerics"]
        self.rejected: list[Rejection] = [Rejection(**r) for r in self.json["rejected"]]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<regard.Explanation: {self.chosen} for {self.problem!r}>"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td><code>{html.escape(r.kernel)}</code></td><td>{html.escape(r.reason)}</td>"
            f"<td>{html.escape(r.remedy)}</td></tr>"
            for r in self.rejected
        )
        return (
            f"<p><code>{html.escape(self.problem)}</code></p>"
            f"<p>chosen: <b><code>{html.escape(self.chosen)}</code></b> ({html.escape(self.numerics)})</p>"
            "<details><summary>"
            f"{len(self.rejected)} kernels not chosen</summary><table>"
            f"<tr><th>kernel</th><th>reason</th><th>remedy</th></tr>{cells}</table></details>"
        )


def explain(
    case: str | Callable[..., Any] | Any,
    *args: Any,
    isa: str = "",
    device: str = "",
    explain_kernel: str | Sequence[str] | None = None,
    **kwargs: Any,
) -> Explanation:
    """Which kernel a computation gets, at what cost, and why every other one does not. Computes nothing.

    Args:
        case: a problem in its one-line form ("decode b=1 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=bf16"); or
            regard.attention, regard.varlen_attention or regard.with_kvcache, followed by the arguments of that call; or
            the first tensor of regard.attention, followed by the rest of its arguments.
        isa: pretend that the CPU's best instruction set is this one ("avx2", "avx512", ...).
        device: "cpu", "cuda", "cuda:1", or a GPU by its product name ("A100", "T4", "H100", ...), pretended: no GPU is
            needed. Default: that of the call's tensors, else the CPU.
        explain_kernel: only these kernels may run. With a call, its own `kernel=` means the same.

    Raises:
        regard.Error: an illegal problem, or one that no allowed kernel can do.
    """
    if isinstance(case, str):
        if "kernel" in kwargs and explain_kernel is None:
            explain_kernel = kwargs.pop("kernel")
        if args or kwargs:
            raise UsageError("case", f"a problem and {len(args) + len(kwargs)} more arguments", "the problem alone")
        problem = case
    else:
        name, values = "attention", (case, *args)
        if callable(case) and not hasattr(case, "__dlpack__"):
            name, values = getattr(case, "__name__", "?"), args
        if explain_kernel is None:
            explain_kernel = kwargs.get("kernel")
        problem, place = _core.problem(name, values, kwargs)
        device = device or place
    return Explanation(*_core.explain(problem, explain_kernel, isa, device))


@dataclass(frozen=True)
class Kernel:
    """A row of the kernel table.

    Attributes:
        name: for example "cpu.avx512.prefill.f32".
        numerics: kernels with equal ids give equal bits.
        summary: how it works, in a phrase.
        here: it runs on this machine as it is set up now.
        phases: of prefill, decode, mixed, backward.
        dtypes: element types of q.
    """

    name: str
    numerics: str
    summary: str
    here: bool
    phases: tuple[str, ...]
    dtypes: tuple[str, ...]


def list_kernels() -> list[Kernel]:
    """Every kernel of this build, best first."""
    return [Kernel(*row) for row in _core.kernels()]


@dataclass(frozen=True)
class KernelScore:
    """What a kernel's outputs came to: error / bound of its worst case, and that case."""

    kernel: str
    cases: int
    misses: int
    worst_ratio: float
    out_error: float
    worst_case: str


@dataclass(frozen=True)
class Miss:
    """An output outside the accuracy rule, or an error that a kernel raised."""

    problem: str
    kernel: str
    what: str


@dataclass(frozen=True)
class CheckReport:
    """What regard.check returns.

    Attributes:
        ok: every output is within the accuracy rule, and something ran.
        cases, runs: problems checked, and kernels times problems.
        unable: problems that none of the kernels can do.
        scores: one for each kernel that ran.
        misses: what went wrong.
    """

    cases: int
    runs: int
    unable: int
    scores: list[KernelScore]
    misses: list[Miss]

    @property
    def ok(self) -> bool:
        return not self.misses and self.runs > 0

    def __str__(self) -> str:
        width = max([len(s.kernel) for s in self.scores], default=6)
        lines = [f"{'kernel':{width}}  cases  missed  worst error/bound"]
        lines += [f"{s.kernel:{width}}  {s.cases:5}  {s.misses:6}  {s.worst_ratio:17.3f}" for s in self.scores]
        lines += [f"MISS {m.kernel}: {m.what}\n  {m.problem}" for m in self.misses]
        verdict = "all within the accuracy rule" if self.ok else f"{len(self.misses)} missed"
        return "\n".join([*lines, f"{self.cases} cases, {self.runs} runs: {verdict}"])


def check(case: str | Sequence[str] | None = None, *, kernel: str = "", quick: bool = True,
          cross: bool = False) -> CheckReport:
    """Holds kernels to the accuracy rule against the fp64 reference, on generated tensors.

    Args:
        case: a problem or several; None: a grid of problems.
        kernel: a kernel's name or a dotted prefix; default: every kernel that can do a problem.
        quick: of the grid only a sample, in seconds; False: all of it, in minutes.
        cross: also compare kernels with each other, bit for bit where their numerics are equal.

    Raises:
        regard.Error: an illegal problem, an unknown kernel.
    """
    cases = [] if case is None else [case] if isinstance(case, str) else list(case)
    report = _core.check(cases, kernel, quick, cross)
    return CheckReport(
        report["cases"],
        report["runs"],
        report["unable"],
        [KernelScore(*s) for s in report["scores"]],
        [Miss(*m) for m in report["misses"]],
    )


@dataclass(frozen=True)
class BenchResult:
    """What regard.bench returns: times of a launch, and the roof of this machine, measured turn about with it.

    Attributes:
        median_ms, p10_ms, p90_ms: of one launch, over `rounds`.
        gflops: of visible pairs only. gbps: each visible K and V byte once.
        roof, roof_value, roof_percent: the limit that the case is held against (GFLOP/s, or GB/s for reading).
        max_error, ok: of the last output against the fp64 reference.
    """

    case: str
    kernel: str
    threads: int
    rounds: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    gflops: float
    gbps: float
    roof: str
    roof_value: float
    roof_percent: float
    roof_how: str
    max_error: float
    ok: bool

    def __str__(self) -> str:
        unit = "GB/s" if self.roof.startswith("read") else "GFLOP/s"
        return (
            f"{self.case}\n{self.kernel}, {self.threads} threads: {self.median_ms:.3f} ms "
            f"({self.p10_ms:.3f} to {self.p90_ms:.3f}), {self.gflops:.1f} GFLOP/s, {self.gbps:.1f} GB/s\n"
            f"{self.roof_percent:.1f} % of {self.roof} {self.roof_value:.1f} {unit} ({self.roof_how})\n"
            f"max error {self.max_error:.1e}: {'good' if self.ok else 'MISS'}"
        )


def bench(case: str, *, kernel: str = "", min_seconds: float = 0.3, threads: int = 0) -> BenchResult:
    """Times the launches of a case against the roof of this machine, and checks the output.

    Args:
        case: a problem in its one-line form.
        kernel: a kernel's name or a dotted prefix; default: the one that regard chooses.
        min_seconds: time of launches; the probes of the roof come on top.
        threads: 0: as many as a call of this thread takes.

    Raises:
        regard.Error: an illegal problem, an unknown kernel, one that cannot do the case.
    """
    return BenchResult(**_core.bench(case, kernel, min_seconds, threads))


def num_threads() -> int:
    """Threads that the next call from this Python thread uses.

    REGARD_THREADS where it is set, else what the OpenMP runtime gives this thread: all cores, OMP_NUM_THREADS, or the
    number of torch.set_num_threads, which torch and regard share.
    """
    return int(_core.threads())
