"""One peer library as a child process of `regard bench --peers`; one case at a time.

    python worker.py --peer torch-sdpa --threads 2 --memory FD

Lines on standard input, one answer to each on standard output:
    case {json}   ->  ready {"version": ..., "how": ...}   or   cannot REASON
    run COUNT     ->  took SECONDS       COUNT calls of the library, timed here around nothing else
    output        ->  done               the last results, as f32, lie in the shared memory (case_data.py)
    quit, or the end of input, ends the process.
"""
import argparse
import importlib
import json
import os
import signal
import sys
import time

PEERS = {  # name: (module, class)
    "torch-sdpa": ("peer_torch", "TorchSdpa"),
    "ort-gqa": ("peer_ort", "OrtGqa"),
    "ort-mha": ("peer_ort", "OrtMha"),
    "onednn-graph": ("peer_onednn", "OneDnnGraph"),
}


def reason(error):
    """One line for `cannot`, however an exception words itself."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 400 else words[:397] + "..."


class Worker:
    def __init__(self, name, threads, memory):
        module, self.kind = PEERS[name]
        self.module = importlib.import_module(module)
        self.peer = getattr(self.module, self.kind)(threads)
        self.memory = memory
        self.case = self.call = self.fetch = self.result = None

    def prepare(self, text):
        from case_data import Cannot, Case
        self.case = self.call = self.fetch = self.result = None  # the last case's copies go before the next one's come
        self.case = Case(json.loads(text), self.memory)
        if self.case.backward and not hasattr(self.peer, "prepare_backward"):
            raise Cannot("it has no backward pass on the CPU")
        prepare = self.peer.prepare_backward if self.case.backward else self.peer.prepare
        how, self.call, self.fetch = prepare(self.case)
        return json.dumps({"version": self.peer.version(), "how": how})

    def run(self, count):
        call, result = self.call, None
        start = time.perf_counter()
        for _ in range(count):
            result = call()
        seconds = time.perf_counter() - start
        self.result = result
        return seconds

    def output(self):
        results = self.fetch(self.result)
        for place, result in zip(self.case.results, results if self.case.backward else [results], strict=True):
            place[...] = result


def serve(name, threads, memory, answers):
    worker = None
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        try:
            if word == "quit":
                return
            if word == "case":
                worker = worker or Worker(name, threads, memory)
                answer = "ready " + worker.prepare(rest)
            elif word == "run":
                answer = f"took {worker.run(int(rest)):.9f}"
            elif word == "output":
                worker.output()
                answer = "done"
            else:
                answer = f"cannot understand '{word}'"
        except Exception as error:  # whatever a library throws is its answer to this case
            answer = "cannot " + reason(error)
        answers.write(answer + "\n")
        answers.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, choices=sorted(PEERS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", type=int, help="descriptor of the shared memory")
    parser.add_argument("--version", action="store_true", help="print the library's version and stop")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    if options.version:
        print(Worker(options.peer, options.threads, None).peer.version())
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # regard answers Ctrl-C, and ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    serve(options.peer, options.threads, options.memory, answers)


main()
