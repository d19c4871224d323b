"""Runs every Python example of the docstrings, of docs/ and of README.md."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import textwrap

import keras
import numpy as np
import pytest
from keras import ops

import keras_mtl

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
OTHER_BACKENDS = {"tensorflow", "jax", "torch"} - {keras.backend.backend()}


def blocks(text):
    """Yields the fenced Python blocks of a text."""
    for match in BLOCK.finditer(text):
        yield textwrap.dedent(match.group(2))


def modules():
    yield keras_mtl
    for info in pkgutil.walk_packages(keras_mtl.__path__, "keras_mtl."):
        backend, *_ = info.name.rpartition(".")[2].split("_")  # jax, jax_forward
        if backend not in OTHER_BACKENDS:
            yield importlib.import_module(info.name)


def docstring_examples():
    for module in modules():
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = getattr(node, "name", "module")
                for index, block in enumerate(blocks(ast.get_docstring(node) or "")):
                    yield pytest.param(block, id=f"{module.__name__}:{name}:{index}")


def pages():
    paths = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
    for path in paths:
        if list(blocks(path.read_text())):
            yield pytest.param(path, id=str(path.relative_to(ROOT)))


def namespace():
    return {"keras": keras, "keras_mtl": keras_mtl, "np": np, "ops": ops}


@pytest.mark.parametrize("source", list(docstring_examples()))
def test_docstring_example(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "<docstring>", "exec"), namespace())


@pytest.mark.parametrize("path", list(pages()))
def test_page(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = namespace()
    for source in blocks(path.read_text()):
        exec(compile(source, str(path), "exec"), shared)
