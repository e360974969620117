"""bench/peers/gpu_peers.py, which measures other libraries on a GPU, tried on the CPU; and what it counts of a case."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

PEERS = os.path.join(os.path.dirname(__file__), "..", "..", "bench", "peers")
SCRIPT = os.path.join(PEERS, "gpu_peers.py")
PREFILL = "prefill b=2 sq=24 skv=24 hq=4 hkv=2 d=32 dtype=f32 causal"
PAGED = "decode b=2 sq=1 skv=40 hq=4 hkv=2 d=32 dtype=f32 page=16 placement=random"
FP8 = "decode b=1 sq=1 skv=40 hq=4 hkv=2 d=32 dtype=bf16 kv=f8e4m3"
BACKWARD = "backward b=1 sq=16 skv=16 hq=2 hkv=2 d=32 dtype=f32 causal"


@pytest.fixture
def cases(monkeypatch):
    monkeypatch.syspath_prepend(PEERS)
    import gpu_cases
    return gpu_cases


@pytest.mark.parametrize("sq, skv, causal", [(1, 7, True), (5, 5, True), (3, 8, True), (3, 8, False)])
def test_pairs_are_those_that_a_mask_leaves(cases, sq, skv, causal):
    case = cases.GpuCase(f"prefill b=2 sq={sq} skv={skv} hq=6 hkv=3 d=8 dtype=f16" + (" causal" if causal else ""))
    seen = sum(1 for i in range(sq) for j in range(skv) if not causal or j <= i + skv - sq)
    assert case.pairs() == 2 * 6 * seen
    assert case.flops() == 4 * 8 * case.pairs()
    assert case.kv_bytes() == 2 * 2 * skv * 3 * 8 * 2


def test_pages_hold_the_keys_in_the_order_of_the_table(cases):
    case = cases.GpuCase(PAGED)
    _, k, v = case.tensors(torch.device("cpu"))
    pages_k, pages_v, table, lengths = case.pages(k, v)
    assert lengths.tolist() == [40, 40] and table.shape == (2, 3) and sorted(table.flatten().tolist()) == list(range(6))
    for pages, dense in ((pages_k, k), (pages_v, v)):
        for b in range(2):
            rows = torch.cat([pages[int(p)] for p in table[b]])[:40]
            assert torch.equal(rows, dense[b])


def test_unknown_words_of_a_case_are_refused(cases):
    with pytest.raises(ValueError, match="softcap"):
        cases.GpuCase(PREFILL + " softcap=30")


def test_libraries_take_turns_and_agree(tmp_path):
    path = tmp_path / "peers.json"
    command = [sys.executable, "-B", SCRIPT, "--device", "cpu", "--seconds", "300", "--json", str(path), PREFILL, PAGED, FP8,
               BACKWARD, "--only", "regard", "--only", "torch-flash", "--only", "torch-math", "--only", "torch-cudnn"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    got = json.loads(path.read_text(encoding="utf-8"))
    assert got["machine"]["torch"] == torch.__version__
    assert got["roofs"]["copy_gbps"] > 0 and got["roofs_after"]["gemm_bf16_tflops"] > 0
    prefill, paged, fp8, backward = got["results"]
    names = {entry["name"] for entry in prefill["libraries"]}
    assert {"regard", "torch-math"} <= names
    for result in (prefill, paged, backward):
        for entry in result["libraries"]:
            assert entry["max_difference"] < 1e-3 and entry["rounds"] >= 5
            assert 0 < entry["p10_ms"] <= entry["median_ms"] <= entry["p90_ms"]
            assert entry["tflops"] > 0 and entry["gbps"] > 0
    assert [entry["name"] for entry in paged["libraries"]] == ["regard"]
    assert {"name": "torch-math", "reason": "it reads no pages"} in paged["cannot"]
    assert not fp8["libraries"] and len(fp8["cannot"]) == 4


def test_a_machine_without_a_gpu_is_said():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-B", SCRIPT, PREFILL], capture_output=True, text=True, timeout=300)
    assert done.returncode == 3 and "no GPU" in done.stdout
