"""install() and uninstall(): what `import flash_attn` finds, and that nothing is left behind."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from flash_attn_support import assert_close, dense, randn  # noqa: E402
from regard import flash_attn as ours  # noqa: E402

PACKAGES = ["flash_attn", "flash_attn.layers", "flash_attn.ops", "flash_attn.ops.triton", "flash_attn.cute",
            "flash_attn_3"]
MODULES = [
    "flash_attn.flash_attn_interface", "flash_attn.bert_padding", "flash_attn.layers.rotary",
    "flash_attn.ops.triton.rotary", "flash_attn.cute.interface", "flash_attn_interface", "flash_attn_config",
    "flash_attn_3.flash_attn_interface", "flash_attn_3.flash_attn_config",
]


def names():
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0].startswith("flash_attn")
            and not name.endswith(("_test", "_support"))}


@pytest.fixture
def installed():
    before = names()
    ours.install()
    yield
    ours.uninstall()
    assert names() == before


@pytest.mark.parametrize("name", PACKAGES + MODULES)
def test_each_module_imports_and_has_spec_and_version(installed, name):
    module = importlib.import_module(name)
    spec = importlib.util.find_spec(name)  # raises ValueError where a module's __spec__ is None
    assert spec is module.__spec__ and spec.name == name == module.__name__
    assert module.__loader__ is spec.loader
    assert module.__version__.split(".")[0] in ("2", "3", "4")
    assert all(int(part) >= 0 for part in module.__version__.split("."))
    is_package = name in PACKAGES
    assert hasattr(module, "__path__") == is_package
    assert (spec.submodule_search_locations is not None) == is_package
    assert module.__package__ == (name if is_package else name.rpartition(".")[0])
    for exported in module.__all__:
        assert hasattr(module, exported)


def test_import_statements_of_every_form(installed):
    space = {}
    exec(textwrap.dedent("""
        import flash_attn
        import flash_attn.bert_padding
        import flash_attn_interface
        import flash_attn_3.flash_attn_interface
        from flash_attn import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache
        from flash_attn import bert_padding, flash_attn_interface as version_2
        from flash_attn.bert_padding import index_first_axis, pad_input, unpad_input
        from flash_attn.flash_attn_interface import _flash_attn_forward, _flash_attn_varlen_backward, FlashAttnFunc
        from flash_attn.layers.rotary import apply_rotary_emb, RotaryEmbedding
        from flash_attn.ops.triton.rotary import apply_rotary
        from flash_attn.cute import flash_attn_func as version_4
        from flash_attn_config import CONFIG
        from flash_attn_3 import flash_attn_func as version_3
        from flash_attn import *
    """), space)
    assert space["flash_attn"].bert_padding is space["bert_padding"]
    assert space["flash_attn"].layers.rotary.apply_rotary_emb is space["apply_rotary_emb"]
    assert space["version_3"] is space["flash_attn_interface"].flash_attn_func
    assert space["version_3"] is not space["flash_attn_func"] is not space["version_4"]
    q = randn(1, 3, 2, 8)
    assert_close(space["flash_attn"].flash_attn_func(q, q, q, causal=True), dense(q, q, q, causal=True)[0])


def test_the_installed_package_is_flash_attn_and_no_more(installed):
    import flash_attn

    assert not hasattr(flash_attn, "install") and "install" not in flash_attn.__all__
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("flash_attn.losses")
    assert importlib.util.find_spec("flash_attn.losses") is None


def test_install_and_uninstall_twice_are_once():
    before = names()
    ours.install()
    first = sys.modules["flash_attn"]
    ours.install()
    assert sys.modules["flash_attn"] is first
    ours.uninstall()
    ours.uninstall()
    assert names() == before and "flash_attn" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("flash_attn")


def test_a_flash_attn_that_was_imported_before_comes_back():
    real, child = ModuleType("flash_attn"), ModuleType("flash_attn.losses")
    sys.modules["flash_attn"], sys.modules["flash_attn.losses"] = real, child
    try:
        ours.install()
        assert sys.modules["flash_attn"] is not real and "flash_attn.losses" not in sys.modules
        ours.uninstall()
        assert sys.modules["flash_attn"] is real and sys.modules["flash_attn.losses"] is child
        assert vars(real).keys() == vars(ModuleType("flash_attn")).keys()
    finally:
        del sys.modules["flash_attn"], sys.modules["flash_attn.losses"]


def test_parts_of_a_flash_attn_on_disk_that_regard_lacks_are_still_found(tmp_path, monkeypatch):
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    (tmp_path / "flash_attn" / "__init__.py").write_text("raise ImportError('needs a GPU')")
    (tmp_path / "flash_attn" / "losses.py").write_text("found = 'losses'")
    (tmp_path / "flash_attn" / "cute" / "utils.py").write_text("found = 'cute.utils'")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = names()
    ours.install()
    try:
        assert importlib.import_module("flash_attn.losses").found == "losses"
        assert importlib.import_module("flash_attn.cute.utils").found == "cute.utils"
        import flash_attn

        assert flash_attn.__path__ == [str(tmp_path / "flash_attn")]
        assert flash_attn.flash_attn_func is ours.flash_attn_func
    finally:
        ours.uninstall()
    assert names() == before


def test_no_distribution_is_pretended(installed):
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("flash-attn")


def test_importing_regard_alone_installs_nothing():
    code = "import sys, regard.flash_attn; print([m for m in sys.modules if m.startswith('flash_attn')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_transformers_imports_and_reads_the_installed_signature(installed):
    pytest.importorskip("transformers")
    import inspect

    import flash_attn

    assert {"window_size", "softcap", "deterministic"} <= set(inspect.signature(flash_attn.flash_attn_func).parameters)
    code = """
        import regard.flash_attn
        regard.flash_attn.install()
        import transformers.modeling_flash_attention_utils
        from transformers import LlamaConfig, LlamaForCausalLM
        config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
        try:
            LlamaForCausalLM._from_config(config, attn_implementation="flash_attention_2")
        except (ImportError, ValueError) as error:
            print("refused", "Flash" in str(error) or "flash" in str(error))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "refused True"
