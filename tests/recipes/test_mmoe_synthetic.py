import importlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    return importlib.import_module("mmoe_synthetic")


@pytest.mark.slow
@pytest.mark.ci
def test_one_seed(tmp_path):
    arguments = "--seeds 1 --epochs 1 --rows 1200 --markdown table.md"
    result = subprocess.run(
        [sys.executable, RECIPES / "mmoe_synthetic.py", *arguments.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    table = (tmp_path / "table.md").read_text()
    for text in ("rho = 0.5: MMoE", "rho = 1.0: shared bottom", "gain %"):
        assert text in table


@pytest.mark.parametrize("rho", [0.5, 0.9, 1.0])
def test_labels_are_those_of_the_formula(recipe, rho):
    """A least-squares fit of the linear part finds directions of that correlation."""
    x, y = recipe.make_data(40_000, rho, seed=1)
    directions = [
        np.linalg.lstsq(x, y[task], rcond=None)[0][:, 0] for task in recipe.TASKS
    ]
    cosine = np.dot(*directions) / np.prod([np.linalg.norm(d) for d in directions])
    assert cosine == pytest.approx(rho, abs=0.08)


def test_parameters_match(recipe):
    sizes = [build().count_params() for build in recipe.MODELS.values()]
    assert abs(sizes[0] - sizes[1]) < 0.02 * sizes[1]
