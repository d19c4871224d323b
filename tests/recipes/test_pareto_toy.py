"""The toy of two tasks: its gradients, its Pareto set, and a run of the recipe."""

import importlib.util
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

RECIPE = pathlib.Path(__file__).parents[2] / "recipes" / "pareto_toy.py"


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("pareto_toy", RECIPE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def losses(x1, x2):
    """The losses as the papers write them, in float64."""
    f1 = np.log(max(abs(0.5 * (-x1 - 7) - np.tanh(-x2)), 5e-6)) + 6
    f2 = np.log(max(abs(0.5 * (-x1 + 3) + np.tanh(-x2) + 2), 5e-6)) + 6
    c1, c2 = max(np.tanh(0.5 * x2), 0), max(np.tanh(-0.5 * x2), 0)
    q1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    q2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    return np.array([f1 * c1 + q1 * c2, f2 * c1 + q2 * c2])


def at(recipe, point):
    found = recipe.losses_and_gradients(np.array(point, "float32"))
    return [keras.ops.convert_to_numpy(part) for part in found]


POINTS = [
    *np.random.default_rng(0).uniform(-10, 10, size=(40, 2)).astype("float32"),
    # On either side of the valleys, and near the kink at x2 = 0.
    (-5.1, 4.0),
    (-4.9, 4.0),
    (4.9, 4.0),
    (5.1, 4.0),
    (3.0, 0.01),
    (3.0, -0.01),
]


@pytest.mark.parametrize("point", POINTS)
def test_losses_and_gradients(recipe, point):
    x = np.array(point, "float64")
    value, jacobian = at(recipe, point)
    np.testing.assert_allclose(value, losses(*x), rtol=1e-5, atol=1e-5)
    step = 1e-6
    differences = [
        (losses(*(x + move)) - losses(*(x - move))) / (2 * step)
        for move in step * np.eye(2)
    ]
    np.testing.assert_allclose(
        jacobian, np.stack(differences, axis=1), rtol=1e-3, atol=1e-4
    )


def test_the_floor_of_a_valley_is_flat(recipe):
    np.testing.assert_array_equal(at(recipe, (5.0, 20.0))[1][1], [0, 0])


def test_no_point_of_the_plane_is_better_than_the_pareto_set(recipe):
    side = np.linspace(-10, 10, 401, dtype="float32")
    everywhere = recipe.losses_at(np.stack(np.meshgrid(side, side), axis=-1))
    everywhere = everywhere.reshape(-1, 2)
    chosen = recipe.pareto_set()[::100]
    assert recipe.gaps(chosen).max() < 1e-5
    for reached in recipe.losses_at(chosen):
        # The grid of x2 is 0.001 wide; float32 is 2e-6 at losses of 20.
        assert not (everywhere < reached - 1e-5).all(axis=1).any()


def test_gaps(recipe):
    curve = recipe.pareto_set()[[0, 2000, 5000]]
    away = curve + np.array([0.0, 1.0], "float32")
    np.testing.assert_allclose(recipe.gaps(away), recipe.ARRIVED, rtol=0.7)
    beyond = np.array([[9.0, -8.4], [-8.5, 7.5], [0.0, 0.0]], "float32")
    assert (recipe.gaps(beyond) > 0.1).all()


def test_a_run(tmp_path):
    arguments = ["--steps", "150", "--learning-rate", "0.1"]
    arguments += ["--methods", "mean", "moco", "--markdown", "table.md"]
    result = subprocess.run(
        [sys.executable, RECIPE, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for printed in (result.stdout, (tmp_path / "table.md").read_text()):
        for expected in ("mean", "moco", "arrived", "(-8.5, 7.5)", "seconds"):
            assert expected in printed
    assert (tmp_path / "pareto_toy.png").stat().st_size > 10_000
