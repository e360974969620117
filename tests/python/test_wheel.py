"""The installed package: complete, without the source tree, without a compiler; the examples of the documentation run."""

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest

import regard

PACKAGE = os.path.dirname(regard.__file__)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def files():
    try:
        return importlib.metadata.files("regard")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("regard is imported from a source tree, not from a wheel")


def test_wheel_has_its_parts_and_nothing_else():
    names = {str(file) for file in files() if ".dist-info" not in str(file) and "__pycache__" not in str(file)}
    assert {"regard/__init__.py", "regard/_core.pyi", "regard/py.typed"} <= names
    assert any(re.fullmatch(r"regard/_core\..*\.so", name) for name in names)
    assert all(name.startswith("regard/") for name in names)
    assert not any(name.endswith((".h", ".cc", ".a", ".cmake")) for name in names)


def test_versions_agree():
    files()
    assert importlib.metadata.version("regard") == regard.__version__


def test_module_asks_for_openmp_by_its_own_name():
    module = regard._core.__file__
    try:
        text = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("readelf is not installed")
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", text))
    assert "libgomp.so.1" in needed
    assert all(re.match(r"lib(gomp|stdc\+\+|gcc_s|m|c|pthread|dl)\.so|ld-linux", name) for name in needed), needed


def test_package_works_without_path_sources_or_tensor_library(tmp_path):
    files()
    code = """
import sys
for name in ("numpy", "torch", "ml_dtypes", "jax"):
    sys.modules[name] = None  # importing it fails
import regard
print(regard.explain("decode skv=100 d=64").chosen)
assert regard.check("decode skv=40 d=64").ok
"""
    got = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, env={"PATH": "/nowhere"}, capture_output=True,
                         text=True, timeout=120)
    assert got.returncode == 0 and got.stdout.startswith("cpu."), got.stderr


def test_importing_regard_imports_no_tensor_library():
    code = "import sys, regard; assert not {'numpy', 'torch', 'jax', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_quickstart_runs():
    example = os.path.join(ROOT, "examples", "quickstart.py")
    got = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=120)
    assert got.returncode == 0, got.stderr
    assert "out (1, 128, 32, 64) lse (1, 32, 128)" in got.stdout
    assert "stored True" in got.stdout and "kernel cpu." in got.stdout
    assert "refused: hq: 31 is not a multiple of hkv 8" in got.stdout


def test_doctest_of_the_package():
    import doctest

    pytest.importorskip("numpy")
    result = doctest.testmod(regard)
    assert result.attempted > 0 and result.failed == 0
