"""The type stubs: mypy and pyright accept right calls and refuse wrong ones, and the stubs name what the module has."""

import ast
import importlib.resources
import inspect
import os
import re
import subprocess
import sys

import pytest

import regard
from regard import _core

HERE = os.path.dirname(__file__)
CALLS = os.path.join(HERE, "typed_calls.py")


def wrong_lines():
    with open(CALLS, encoding="utf-8") as file:
        return {number for number, line in enumerate(file, 1) if line.rstrip().endswith("# wrong")}


def check(*command):
    got = subprocess.run([sys.executable, "-m", *command, CALLS], capture_output=True, text=True, timeout=300, cwd=HERE)
    if "No module named" in got.stderr:
        pytest.skip(f"{command[0]} is not installed")
    lines = {int(n) for n in re.findall(r"typed_calls\.py:(\d+)(?::\d+)?(?: -|:) error", got.stdout)}
    if not lines:
        pytest.skip(f"{command[0]} does not run here: {(got.stdout + got.stderr)[-300:]}")
    assert lines == wrong_lines(), got.stdout


def test_mypy_agrees(tmp_path):
    check("mypy", "--strict", "--cache-dir", str(tmp_path))


def test_pyright_agrees():
    check("pyright", "--pythonpath", sys.executable)


def stub():
    return ast.parse(importlib.resources.files(regard).joinpath("_core.pyi").read_text(encoding="utf-8"))


def test_stubs_name_every_function_of_the_module():
    named = {node.name for node in stub().body if isinstance(node, ast.FunctionDef)}
    there = {name for name in dir(_core) if callable(getattr(_core, name)) and not name.startswith("_")}
    assert named == there


def test_stubs_name_every_argument_of_the_calls():
    tree = stub()
    fields = {}  # of each TypedDict, its bases' included
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            own = [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
            fields[node.name] = own + [f for base in node.bases for f in fields.get(getattr(base, "id", ""), [])]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not hasattr(regard, node.name) or node.name in ("explain", "bench", "check"):
            continue
        names = {a.arg for a in node.args.args + node.args.kwonlyargs}
        if node.args.kwarg is not None:
            names |= set(fields[node.args.kwarg.annotation.slice.id])
        assert names == set(inspect.signature(getattr(regard, node.name)).parameters), node.name


def test_package_is_marked_as_typed():
    assert importlib.resources.files(regard).joinpath("py.typed").is_file()
