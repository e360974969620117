"""Tries every way of asking a library for a case and keeps the fastest, so that each peer runs at its best."""
import gc
import re
import time

from case_data import Cannot

TRIES = 3                # timed calls of each way, after one to warm up
HOPELESS = 2             # a way whose first call takes this many times the best so far is not timed
ENOUGH_SECONDS = 20      # no further way is tried once these are spent and one works
LONGEST_CALL = 60        # seconds; regard waits no longer either


def one_line(error):
    """The gist of an exception, short enough for a line under a table."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.rsplit(" RuntimeError: ", 1)[-1]  # TorchScript: the traceback before it is of its own code
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return text if len(text) <= 160 else text[:157] + "..."


def joined(reasons):
    """(way, reason) pairs as one line; the ways are left out where all have the same reason."""
    if len({reason for _, reason in reasons}) == 1:
        return reasons[0][1]
    return "; ".join(f"{way}: {reason}" for way, reason in reasons)


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def fastest(ways):
    """`ways`: (name, make) pairs; make() returns (call, fetch). Returns (name, call, fetch) of the fastest.

    call() does the work once and returns what fetch(result) turns into f32 (B, Sq, Hq, Dv)."""
    best, reasons, begin = None, [], time.perf_counter()
    for name, make in ways:
        if best and time.perf_counter() - begin > ENOUGH_SECONDS:
            break
        try:
            call, fetch = make()
            seconds = [timed(call)]
            if seconds[0] > LONGEST_CALL:
                raise Cannot(f"one call takes {seconds[0]:.0f} s")
            if best is None or seconds[0] < HOPELESS * best[0]:
                seconds = [timed(call) for _ in range(TRIES if seconds[0] < 1 else 1)]
        except Exception as error:  # a way that a library refuses is no failure of the others
            reasons.append((name, one_line(error)))
            continue
        if best is None or min(seconds) < best[0]:
            best = (min(seconds), name, call, fetch)
        del call, fetch
        gc.collect()
    if best is None:
        raise Cannot(joined(reasons) if reasons else "no way to ask it for this case")
    return best[1:]
