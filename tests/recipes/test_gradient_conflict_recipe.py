"""The comparison of weightings and aggregators."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    return importlib.import_module("gradient_conflict")


@pytest.mark.skipif(
    os.environ.get("KERAS_MTL_DATA") is None,
    reason="KERAS_MTL_DATA names no directory with the prepared files",
)
@pytest.mark.slow
@pytest.mark.ci
def test_one_seed(tmp_path):
    arguments = "--seeds 1 --epochs 1 --train-size 300 --markdown table.md --methods "
    arguments += "uncertainty mgda@representation"
    result = subprocess.run(
        [sys.executable, RECIPES / "gradient_conflict.py", *arguments.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    table = (tmp_path / "table.md").read_text()
    rows = ("single-task", "equal", "uncertainty", "mgda at representation")
    for text in (*rows, "over equal", "conflict", "s/epoch"):
        assert text in result.stdout and text in table
    assert (tmp_path / "gradient_conflict.png").stat().st_size > 10_000


def test_validation_images_choose_the_static_weights(recipe):
    def results(validation, test):
        accuracies = dict.fromkeys(recipe.TASKS, test)
        return [recipe.Result(accuracies, each, []) for each in validation]

    found = {
        "equal": results([0.99, 0.99], 0.99),
        "static:0.6": results([0.90, 0.80], 0.99),
        "static:1.0": results([0.80, 0.80], 0.98),
        "static:1.4": results([0.85, 0.87], 0.97),
    }
    assert recipe.best_static(found) == "static:1.4"


def test_delta_m_is_against_the_same_seed(recipe):
    def results(*seeds):
        return [
            recipe.Result({"left": left, "right": 0.5}, 0.5, [0.25, 0.75])
            for left in seeds
        ]

    found = {
        recipe.SINGLE: results(0.5, 0.8),
        "equal": results(0.5, 0.8),
        "pcgrad": results(0.55, 0.88),
    }
    table = recipe.tabulate(found, dict.fromkeys(found, 1.0), "")
    assert table.values("equal", "delta-m %") == [0.0, 0.0]
    assert table.values("pcgrad", "delta-m %") == pytest.approx([5.0, 5.0])
    assert table.values("pcgrad", "over equal %") == pytest.approx([5.0, 5.0])
    assert table.values("pcgrad", "conflict %") == [50.0, 50.0]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("static:0.6", {"loss_weights": {"left": 0.6, "right": 1.4}}),
        ("geometric_mean", {"weighting": "geometric_mean"}),
        ("cagrad", {"aggregator": "cagrad", "aggregate_at": "parameters"}),
        (
            "mgda@representation",
            {"aggregator": "mgda", "aggregate_at": "representation"},
        ),
    ],
)
def test_arguments(recipe, run, expected):
    assert recipe.arguments_of(run) == expected
