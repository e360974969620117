"""Other attention libraries on a GPU, and the roofs of that GPU, in interleaved rounds.

    regard bench --suite gpu --list > cases.txt
    python bench/peers/gpu_peers.py --cases cases.txt --seconds 90 --json peers.json

Every case: each library's call is warmed up, then rounds in which every call has one turn (a few launches between two
events of the stream), in alternating order; median, 10th and 90th percentile are over the rounds. Roofs: a copy of memory to
memory (read and written bytes) and a bf16 product of two matrices, each measured before and after the cases. All results of
a case are compared with the first library's. Exit code 3 where there is no GPU.
"""
import argparse
import json
import os
import subprocess
import sys
import time

import torch

from gpu_cases import Cannot, GpuCase
from gpu_ways import WAYS

NO_GPU = 3
SHORTEST_TURN = 1e-3
MOST_ROUNDS, LEAST_ROUNDS = 41, 5


def quantile(samples, share):
    ordered = sorted(samples)
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


class Clock:
    """Seconds of a call, mean over some in a row: by events of the GPU's stream; on the CPU by its clock."""

    def __init__(self, device):
        self.gpu = device.type == "cuda"

    def wait(self):
        if self.gpu:
            torch.cuda.synchronize()

    def seconds(self, call, count):
        if not self.gpu:
            start = time.perf_counter()
            for _ in range(count):
                call()
            return (time.perf_counter() - start) / count
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / count


def measure(calls, clock, seconds):
    """{name: seconds of each round} of calls that take turns."""
    counts = {}
    for name, call in calls.items():
        for _ in range(2):
            call()
        clock.wait()
        counts[name] = max(1, min(1000, int(SHORTEST_TURN / max(clock.seconds(call, 1), 1e-9))))
    samples = {name: [] for name in calls}
    start = time.perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.perf_counter() - start > seconds:
            break
        for name in (list(calls) if number % 2 == 0 else reversed(list(calls))):
            samples[name].append(clock.seconds(calls[name], counts[name]))
    return samples


def figures(samples):
    return {"median_ms": quantile(samples, 0.5) * 1e3, "p10_ms": quantile(samples, 0.1) * 1e3,
            "p90_ms": quantile(samples, 0.9) * 1e3, "rounds": len(samples)}


def reason(error):
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else words[:297] + "..."


def difference(result, first):
    """The largest difference of two results: out, or a tuple of gradients."""
    mine, other = ((r,) if isinstance(r, torch.Tensor) else r for r in (result, first))
    if [x.numel() for x in mine] != [x.numel() for x in other]:
        return float("inf")
    # Gradients are (B, S, H, D) of one library and (B, H, S, D) of another.
    pairs = ((a, b if a.shape == b.shape else b.transpose(1, 2)) for a, b in zip(mine, other))
    return max(float((a.float() - b.float()).abs().max()) if a.numel() else 0.0 for a, b in pairs)


def run_case(text, names, device, seconds):
    case, clock = GpuCase(text), Clock(device)
    calls, cannot, differs, first = {}, {}, {}, None
    for name in names:
        try:
            call = WAYS[name](case, device)
            result = call()
            clock.wait()
        except Exception as error:  # whatever a library throws is its answer to this case
            cannot[name] = reason(error)
            continue
        first = result if first is None else first
        differs[name] = difference(result, first)
        calls[name] = call
    entries = []
    for name, samples in (measure(calls, clock, seconds) if calls else {}).items():
        entry = {"name": name, **figures(samples), "max_difference": differs[name]}
        entry["tflops"] = case.flops() / entry["median_ms"] / 1e9
        entry["gbps"] = case.kv_bytes() / entry["median_ms"] / 1e6
        entries.append(entry)
    return {"case": text, "reads": case.reads(), "libraries": entries,
            "cannot": [{"name": name, "reason": why} for name, why in cannot.items()]}


def roofs(device, size_bytes, side):
    """GB/s read and written by a copy, TFLOP/s of a bf16 product."""
    clock = Clock(device)
    source = torch.empty(size_bytes, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    a = torch.randn(side, side, device=device).to(torch.bfloat16)
    b = torch.randn(side, side, device=device).to(torch.bfloat16)
    samples = measure({"copy": lambda: target.copy_(source), "gemm": lambda: torch.mm(a, b)}, clock, 1.0)
    return {"copy_gbps": 2e-9 * size_bytes / quantile(samples["copy"], 0.5),
            "gemm_bf16_tflops": 2e-12 * side**3 / quantile(samples["gemm"], 0.5)}


def machine(device):
    about = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": str(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {"chip": properties.name, "multiprocessors": properties.multi_processor_count,
                  "memory_bytes": properties.total_memory, "cudnn": torch.backends.cudnn.version()}
        try:
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            about["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.split("\n")[0]
        except (OSError, subprocess.TimeoutExpired):
            about["driver"] = None
    about["commit"] = commit()
    return about


def commit():
    try:
        here = os.path.dirname(os.path.abspath(__file__))
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=here,
                              timeout=20)
        return done.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def show(result):
    print(result["case"])
    for entry in result["libraries"]:
        rate = f"{entry['gbps']:8.0f} GB/s" if result["reads"] else f"{entry['tflops']:8.1f} TFLOP/s"
        print(f"  {entry['name']:16} {entry['median_ms']:10.4f} ms {rate}   rounds {entry['rounds']}, "
              f"differs {entry['max_difference']:.2g}")
    for entry in result["cannot"]:
        print(f"  {entry['name']:16} cannot: {entry['reason'][:120]}")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help="cases, each as one word")
    parser.add_argument("--cases", help="a file with one case a line")
    parser.add_argument("--only", action="append", choices=sorted(WAYS), help="only these libraries")
    parser.add_argument("--seconds", type=float, default=90, help="for everything, about")
    parser.add_argument("--json", help="where the results go")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu tries the script itself")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"gpu_peers: no GPU: torch {torch.__version__} finds none")
        return NO_GPU
    texts = list(options.case)
    if options.cases:
        with open(options.cases, encoding="utf-8") as file:
            texts += [line.strip() for line in file if line.strip()]
    names = options.only or list(WAYS)
    start = time.monotonic()
    small = device.type == "cpu"
    size = (1 << 24, 256) if small else (1 << 30, 8192)
    result = {"machine": machine(device), "roofs": roofs(device, *size), "results": []}
    torch.set_grad_enabled(False)
    for number, text in enumerate(texts):
        left = options.seconds - (time.monotonic() - start)
        if left <= 0:
            nothing = {"name": "all", "reason": f"the {options.seconds:g} seconds were up"}
            result["results"].append({"case": text, "reads": False, "libraries": [], "cannot": [nothing]})
        else:
            result["results"].append(run_case(text, names, device, 0.5 * left / (len(texts) - number)))
        show(result["results"][-1])
        if not small:
            torch.cuda.empty_cache()
    torch.set_grad_enabled(True)
    result["roofs_after"] = roofs(device, *size)
    for name, value in result["roofs"].items():
        print(f"roof {name:18} {value:10.1f} before, {result['roofs_after'][name]:10.1f} after")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
