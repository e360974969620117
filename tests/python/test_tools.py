"""explain, list_kernels, backends, check, bench."""

import asyncio
import threading

import numpy as np
import pytest

import oracle
import regard

CASE = "decode b=1 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=f32 causal"


def tensors():
    return oracle.normal(2, 20, 4, 32, seed=1), oracle.normal(2, 30, 2, 32, seed=2), oracle.normal(2, 30, 2, 32, seed=3)


def test_explain_tells_the_kernel_and_why_not_the_others():
    e = regard.explain(CASE)
    names = {kernel.name for kernel in regard.list_kernels()}
    assert e.chosen in names and e.chosen.startswith("cpu.")
    assert {r.kernel for r in e.rejected} == names - {e.chosen}
    assert all(r.reason for r in e.rejected)
    prefill = next(r for r in e.rejected if r.kernel.startswith("cpu.") and ".prefill.f32" in r.kernel)
    assert "seq_q" in prefill.reason and prefill.remedy and not prefill.able
    assert next(r for r in e.rejected if r.kernel == "reference").able


def test_explanation_prints_and_shows_itself():
    e = regard.explain(CASE)
    assert str(e) == e.text and e.chosen in e.text and "rejected" in e.text
    assert e.chosen in repr(e)
    page = e._repr_html_()
    assert e.chosen in page and page.count("<tr>") == len(e.rejected) + 1
    assert "&gt;=" in page and ">= 16" not in page
    assert e.json["chosen"]["kernel"] == e.chosen and e.json["problem"] == e.problem


def test_explain_takes_a_call_instead_of_a_problem():
    q, k, v = tensors()
    plain = regard.explain(q, k, v, causal=True, return_lse=True)
    named = regard.explain(regard.attention, q, k, v, causal=True, return_lse=True)
    assert plain.problem == named.problem == "prefill b=2 sq=20 skv=30 hq=4 hkv=2 d=32 dtype=f32 causal lse"
    packed = regard.explain(regard.varlen_attention, q[0], k[0], v[0], [0, 4, 20], [0, 9, 30])
    assert packed.problem.startswith("mixed b=2") and "varlen" in packed.problem
    cached = regard.explain(regard.with_kvcache, q[:, :1], k, v, k[:, :1], v[:, :1], cache_seqlens=[3, 29])
    assert "append=1" in cached.problem
    out, lse = regard.attention(q, k, v, return_lse=True)
    back = regard.explain(regard.attention_backward, out, q, k, v, out, lse, grad_dtype="f32")
    assert back.problem.startswith("backward ")


def test_explain_computes_nothing():
    q, k, v = tensors()
    k_cache, v_cache = k.copy(), v.copy()
    regard.explain(regard.with_kvcache, q[:, :1], k_cache, v_cache, k[:, :1], v[:, :1], cache_seqlens=[3, 29])
    assert np.array_equal(k_cache, k) and np.array_equal(v_cache, v)


def test_explain_pretends_an_instruction_set():
    assert regard.explain(CASE, isa="scalar").chosen in ("cpu.scalar.decode.f32", "reference")


def test_explain_obeys_a_choice():
    assert regard.explain(CASE, kernel="reference").chosen == "reference"
    q, k, v = tensors()
    assert regard.explain(q, k, v, kernel=["cpu.scalar", "reference"]).chosen == "cpu.scalar.prefill.f32"


def test_kernel_table_says_what_runs_here():
    kernels = regard.list_kernels()
    assert kernels[-1].name == "reference" and kernels[-1].here
    assert {"prefill", "decode", "mixed", "backward"} == set(kernels[-1].phases)
    scalar = next(kernel for kernel in kernels if kernel.name == "cpu.scalar.decode.bf16")
    assert scalar.here and scalar.phases == ("decode",) and scalar.dtypes == ("bf16",)
    assert scalar.summary and scalar.numerics


def test_backends_choose_for_a_block():
    q, k, v = tensors()
    usual = regard.explain(q, k, v).chosen
    with regard.backends("reference"):
        assert regard.explain(q, k, v).chosen == "reference"
        inside = regard.attention(q, k, v)
        with regard.backends("cpu.scalar"):
            assert regard.explain(q, k, v).chosen == "cpu.scalar.prefill.f32"
            assert regard.explain(q, k, v, kernel="reference").chosen == "reference"
        assert regard.explain(q, k, v).chosen == "reference"
    assert regard.explain(q, k, v).chosen == usual
    assert np.array_equal(inside, regard.attention(q, k, v, kernel="reference"))


def test_backends_exclude():
    q, k, v = tensors()
    usual = regard.explain(q, k, v).chosen
    with regard.backends(exclude=usual):
        assert regard.explain(q, k, v).chosen != usual
    with regard.backends("cpu", exclude=["cpu"]), pytest.raises(regard.Error) as caught:
        regard.attention(q, k, v)
    assert caught.value.field == "kernel"


def test_choice_that_nothing_satisfies_lists_every_reason():
    q, k, v = tensors()
    with regard.backends("cpu.scalar.decode"), pytest.raises(regard.Error) as caught:
        regard.attention(q, k, v)
    assert "seq_q" in str(caught.value)


def test_backends_belong_to_their_thread_and_task():
    q, k, v = tensors()
    seen = {}

    def look(name):
        seen[name] = regard.explain(q, k, v).chosen

    with regard.backends("reference"):
        thread = threading.Thread(target=look, args=("thread",))
        thread.start()
        thread.join()
    assert seen["thread"] != "reference"

    async def task(name, pattern):
        with regard.backends(pattern):
            await asyncio.sleep(0.01)
            look(name)
            await asyncio.sleep(0.01)

    async def both():
        await asyncio.gather(task("first", "reference"), task("second", "cpu.scalar"))

    asyncio.run(both())
    assert seen["first"] == "reference" and seen["second"] == "cpu.scalar.prefill.f32"


def test_backends_refuses_what_is_no_name():
    with pytest.raises(regard.UsageError), regard.backends(3):
        pass
    with pytest.raises(regard.Error), regard.backends("gpu"):
        regard.attention(*tensors())


def test_check_holds_kernels_to_the_rule():
    report = regard.check(["prefill b=1 sq=20 skv=20 hq=2 hkv=1 d=64 dtype=f32 causal", "decode b=2 skv=70 d=33 dtype=bf16"])
    assert report.ok and report.cases == 2 and not report.misses
    assert {s.kernel for s in report.scores} >= {"cpu.scalar.prefill.f32", "cpu.scalar.decode.bf16"}
    assert all(0 <= s.worst_ratio <= 1 for s in report.scores)
    assert "2 cases" in str(report) and "all within" in str(report)
    alone = regard.check("decode skv=30", kernel="reference")
    assert [s.kernel for s in alone.scores] == ["reference"]


def test_check_of_a_kernel_that_cannot_is_not_ok():
    report = regard.check("decode skv=30 dtype=f32", kernel="cpu.scalar.prefill")
    assert report.unable == 1 and not report.ok


def test_bench_measures_and_checks():
    result = regard.bench("decode skv=256 hq=4 hkv=2 d=64 dtype=f32", min_seconds=0.01, threads=1)
    assert result.ok and result.threads == 1 and result.rounds >= 3
    assert result.p10_ms <= result.median_ms <= result.p90_ms
    assert result.roof == "read" and result.roof_value > 0 and result.kernel in str(result)
    named = regard.bench("prefill sq=64 skv=64", kernel="cpu.scalar", min_seconds=0.01)
    assert named.kernel == "cpu.scalar.prefill.f32" and named.gflops > 0


def test_signatures_can_be_read():
    import inspect

    names = list(inspect.signature(regard.attention).parameters)
    assert names[:4] == ["q", "k", "v", "scale"] and "return_lse" in names
    for call in (regard.attention, regard.varlen_attention, regard.with_kvcache, regard.attention_backward,
                 regard.merge_states):
        parameters = inspect.signature(call).parameters
        assert call.__doc__ and "regard.Error" in call.__doc__ and len(parameters) >= 4
