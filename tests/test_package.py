"""What holds of the package as a whole."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_mtl"
HEAVY = [
    "sklearn",
    "matplotlib",
    "pandas",
    "jinja2",
    "rich",
    "tensorflow_datasets",
    "keras_tuner",
    "scipy",
    "tensorboard",
]
LAYERS = {
    "layers": set(),
    "weighting": set(),
    "aggregation": set(),
    "data": set(),
    "distributions": set(),
    "losses": {"distributions"},
    "metrics": {"distributions"},
    "learners": {"distributions", "engine"},
    "datasets": {"data"},
    "engine": {"weighting", "aggregation"},
    "models": {
        "engine",
        "layers",
        "weighting",
        "aggregation",
        "learners",
        "losses",
        "metrics",
    },
    "analysis": {"engine", "models", "metrics", "data", "pages"},
    "pages": set(),
    "tuning": {
        "models",
        "layers",
        "weighting",
        "aggregation",
        "metrics",
        "data",
        "pages",
        "analysis",
    },
}
COMMON = {"argument_checks"}


def imported(path):
    """Yields the names of the modules that a source file imports at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            if node.module == "keras_mtl":
                yield from (f"keras_mtl.{alias.name}" for alias in node.names)


def test_import_brings_nothing_heavy():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_mtl;"
        "print(*(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    new = {name.partition(".")[0] for name in result.stdout.split()}
    assert not new & set(HEAVY)


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_arrows_run_one_way(package):
    for path in (PACKAGE / package).rglob("*.py"):
        for name in imported(path):
            if name.startswith("keras_mtl."):
                target = name.split(".")[1]
                assert target in LAYERS[package] | {package, *COMMON}, f"{path}: {name}"


def test_only_the_engine_knows_backends():
    for path in PACKAGE.rglob("*.py"):
        if "engine" in path.parts:
            continue
        backends = {"tensorflow", "jax", "torch"} & {
            name.partition(".")[0] for name in imported(path)
        }
        assert not backends, f"{path} imports {backends}"


def test_nothing_private_of_keras_is_imported():
    for path in PACKAGE.rglob("*.py"):
        assert "keras.src" not in path.read_text(), path


def test_no_large_files():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    large = [n for n in tracked if (ROOT / n).stat().st_size > 512 * 1024]
    assert not large
