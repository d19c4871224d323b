"""Recipes run from the command line to the end."""

import os
import pathlib
import subprocess
import sys

import pytest

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
DATA = os.environ.get("KERAS_MTL_DATA")
needs_data = pytest.mark.skipif(
    DATA is None, reason="KERAS_MTL_DATA names no directory with the prepared files"
)


def run(name, directory, *arguments):
    result = subprocess.run(
        [sys.executable, RECIPES / name, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.parametrize("name", sorted(p.name for p in RECIPES.glob("*.py")))
def test_every_recipe_says_what_it_does(name):
    source = (RECIPES / name).read_text()
    assert source.startswith('"""')
    if "argparse" in source:
        assert f"python recipes/{name}" in source


def test_quickstart(tmp_path):
    printed = run("quickstart.py", tmp_path, "--epochs", "2", "--train-size", "300")
    for expected in ("single-task", "uncertainty", "sum_mae", "delta-m", "seconds"):
        assert expected in printed
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.ci
def test_transfer_digits(tmp_path):
    arguments = ["--seeds", "1", "--epochs", "2", "--train-rows", "128"]
    printed = run("transfer_digits.py", tmp_path, *arguments)
    for expected in ("digit: not enough evidence", "as advised", "together", "delta-m"):
        assert expected in printed
    page = (tmp_path / "transfer.html").read_text()
    assert "Three questions about a digit" in page
    # One seed says nothing of how alike networks are, nor is there a learning curve.
    assert page.count("data:image/svg") == 6


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["transfer_census", "transfer_air_quality"])
def test_transfer_on_tables(name, tmp_path):
    arguments = ["--seeds", "1", "--epochs", "1"]
    printed = run(f"{name}.py", tmp_path, *arguments)
    for expected in ("not enough evidence", "as advised", "together", "delta-m"):
        assert expected in printed
    assert (tmp_path / f"{name}.html").exists()


@pytest.mark.slow
@pytest.mark.ci
def test_few_shot_digits(tmp_path):
    arguments = ["--steps", "2", "--test-episodes", "40"]
    printed = run("few_shot_digits.py", tmp_path, *arguments)
    for expected in ("prototypes", "transformer", "1-shot", "other support"):
        assert expected in printed
    assert (tmp_path / "few_shot_digits.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "sinusoid",
            ["--learner", "np", "maml-5", "--test-tasks", "100"],
            ["np", "maml-5, steps: 10", "10-shot"],
        ),
        (
            "gp_regression",
            ["--learner", "cnp", "--test-tasks", "50", "--grid", "5"],
            ["rbf", "matern52", "Bayes-optimal", "gap"],
        ),
    ],
)
def test_regression(name, arguments, expected, tmp_path):
    printed = run(
        f"{name}.py", tmp_path, "--minutes", "0.001", "--steps", "4", *arguments
    )
    for text in expected:
        assert text in printed
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.ci
def test_search_planted(tmp_path):
    arguments = ["--seeds", "1", "--trials", "3", "--epochs", "2", "--repeats", "1"]
    printed = run("search_planted.py", tmp_path, *arguments)
    for expected in ("affinity: tried in", "random: tried in", "hard sharing"):
        assert expected in printed


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param([], marks=pytest.mark.ci, id="alone"),
        pytest.param(["--distributed"], id="by several processes"),
    ],
)
def test_search_census(how, tmp_path):
    arguments = ["--trials", "2", "--rows", "512", "--search-epochs", "1"]
    arguments += ["--max-parameters", "1000000", "--epochs", "1", "--seeds", "1", *how]
    printed = run("search_census.py", tmp_path, *arguments)
    assert ("a chief and 2 workers" in printed) == bool(how)
    for expected in ("2 trials, 2 completed", "winner of the search", "MMoE"):
        assert expected in printed
    for suffix in (".png", ".html", "_tree.png"):
        assert (tmp_path / f"search_census{suffix}").stat().st_size > 5_000


@needs_data
@pytest.mark.slow
@pytest.mark.ci
def test_omniglot(tmp_path):
    arguments = [
        "--learner",
        "mann",
        "--filters",
        "8",
        "8",
        "8",
        "8",
        "--minutes",
        "0.001",
        "--encoder-minutes",
        "0.0005",
    ]
    arguments += ["--steps", "2", "--test-episodes", "20", "--episodes-per-batch", "2"]
    printed = run("omniglot.py", tmp_path, *arguments)
    for expected in ("1-shot", "5-shot", "training characters", "by instance", "10."):
        assert expected in printed


@needs_data
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("census_income.py", ["--batch-size", "4096"], ["income AUC", "uncertainty"]),
        ("tox21.py", ["--weighting", "uncertainty"], ["NR-AR", "mean", "single-task"]),
    ],
)
def test_real_data(name, arguments, expected, tmp_path):
    table = tmp_path / "table.md"
    arguments = ["--seeds", "1", "--epochs", "1", "--markdown", str(table), *arguments]
    printed = run(name, tmp_path, *arguments)
    for text in expected:
        assert text in printed and text in table.read_text()
