"""Python threads, the GIL, OpenMP's pool, and fork."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import oracle
import regard


def run(code, **environment):
    """Runs a program of its own; its standard output and error."""
    got = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120,
                         env={**os.environ, **environment})
    assert got.returncode == 0, got.stdout + got.stderr
    return got


def test_threads_may_call_at_the_same_time():
    cases = [[oracle.normal(2, n, 4, 32, seed=s) for s in range(3)] for n in (1, 7, 40, 64)]
    want = [regard.attention(*case, causal=True) for case in cases]

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, len(cases), 60):
            if not np.array_equal(regard.attention(*cases[i], causal=True), want[i]):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(12)))


def test_python_runs_while_a_call_computes():
    q = oracle.normal(1, 2048, 8, 64)
    done = threading.Event()
    ticks = 0

    def work():
        for _ in range(3):
            regard.attention(q, q, q, kernel="cpu.scalar.prefill.f32")
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.001)
    thread.join()
    assert ticks > 3  # with the lock held there would be at most one between two calls


def test_number_of_threads_changes_no_bit():
    q, k, v = (oracle.normal(2, 200, 6, 64, seed=s) for s in range(3))
    code = """
        import sys; sys.path.insert(0, {folder!r})
        import numpy, oracle, regard
        q, k, v = (oracle.normal(2, 200, 6, 64, seed=s) for s in range(3))
        assert regard.num_threads() == {threads}, regard.num_threads()
        sys.stdout.write(regard.attention(q, k, v, causal=True).tobytes().hex())
    """
    want = regard.attention(q, k, v, causal=True).tobytes().hex()
    for threads, environment in ((1, {"OMP_NUM_THREADS": "1"}), (3, {"REGARD_THREADS": "3", "OMP_NUM_THREADS": "1"})):
        assert run(code.format(folder=os.path.dirname(__file__), threads=threads), **environment).stdout == want


FORK = """
    import os, signal, numpy as np
    {before}
    import regard
    q = np.ones((1, 64, 8, 64), np.float32)
    {first}
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        out = regard.attention(q, q, q, causal=True)
        regard.attention(q, q, q, causal=True)
        os._exit(0 if np.allclose(out, 1) else 1)
    status = os.waitpid(child, 0)[1]
    assert status == 0, status
    assert np.allclose(regard.attention(q, q, q), 1)
"""


@pytest.mark.skipif(regard.num_threads() < 2, reason="one thread has no pool")
def test_child_forked_after_a_call_answers_and_says_that_it_runs_on_one_thread():
    got = run(FORK.format(before="", first="regard.attention(q, q, q)"))
    assert got.stderr.count("regard: this process was forked") == 1


def test_child_forked_before_a_call_answers_silently():
    assert "regard" not in run(FORK.format(before="", first="")).stderr


def test_child_forked_after_torch_used_the_pool_answers():
    pytest.importorskip("torch")
    run(FORK.format(before="import torch", first="torch.ones(4_000_000).exp().sum(); torch.ones(999, 999).mm(torch.ones(999, 999))"))


def test_workers_of_a_data_loader_answer():
    pytest.importorskip("torch")
    run("""
        import numpy as np, torch, regard
        class Data(torch.utils.data.Dataset):
            def __len__(self): return 8
            def __getitem__(self, i):
                q = torch.full((1, 32, 2, 16), float(i))
                return regard.attention(q, q, q)
        q = np.ones((1, 64, 8, 64), np.float32)
        regard.attention(q, q, q)
        loader = torch.utils.data.DataLoader(Data(), batch_size=2, num_workers=2, timeout=60)
        got = torch.cat(list(loader))
        assert torch.allclose(got[:, 0, 0, 0, 0], torch.arange(8.0)), got[:, 0, 0, 0, 0]
    """)


@pytest.mark.parametrize("first, second", [("torch", "regard"), ("regard", "torch")])
def test_torch_and_regard_share_one_openmp(first, second):
    torch = pytest.importorskip("torch")
    folder = os.path.join(os.path.dirname(torch.__file__), "lib")
    if not os.path.exists(os.path.join(folder, "libgomp.so.1")):
        pytest.skip("this build of torch brings another OpenMP runtime, or one under another name")
    run(f"""
        import {first}, {second}
        import torch, regard, numpy as np
        q = np.ones((1, 64, 8, 64), np.float32)
        regard.attention(q, q, q), torch.ones(4_000_000).exp().sum()
        pools = {{line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line}}
        assert len(pools) == 1, pools
        for n in (1, 3, 2):
            torch.set_num_threads(n)
            assert regard.num_threads() == n, regard.num_threads()
    """, REGARD_THREADS="") if "REGARD_THREADS" not in os.environ else pytest.skip("REGARD_THREADS is set")


def test_interrupt_is_not_lost():
    # Ctrl-C during calls arrives as KeyboardInterrupt between them. A process started in the background by a shell
    # ignores SIGINT, and Python then leaves it so: the handler is put in place here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    q = oracle.normal(1, 256, 8, 64)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                regard.attention(q, q, q)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def test_plans_of_a_thread_die_with_it():
    q = oracle.normal(1, 8, 2, 16)
    want = regard.attention(q, q, q)
    for _ in range(50):
        results = []
        thread = threading.Thread(target=lambda: results.append(regard.attention(q, q, q)))
        thread.start()
        thread.join()
        assert np.array_equal(results[0], want)
