"""The properties that the docs claim, method by method."""

import pathlib

import keras
import numpy as np
import pytest
from reference import jacobian_of, stationary_jacobian

from keras_mtl import aggregation
from keras_mtl.aggregation.registry import AGGREGATORS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "aggregation.md"
PROPERTIES = ["non-conflicting", "order-free", "linear", "scale-free", "stationary"]
SIZES = [2, 3, 5, 8]


def claims():
    """Reads the table of properties: {method: {property: claimed}}."""
    lines = PAGE.read_text().splitlines()
    header = next(i for i, line in enumerate(lines) if "| non-conflicting |" in line)
    titles = [cell.strip() for cell in lines[header].strip("|").split("|")]
    table = {}
    for line in lines[header + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        row = dict(zip(titles, cells, strict=True))
        table[row["method"].strip("`")] = {p: row[p] == "yes" for p in PROPERTIES}
    return table


CLAIMS = claims()


def make(name, **arguments):
    if name in ("pcgrad", "grad_vac", "grad_drop"):
        arguments["seed"] = 0
    return AGGREGATORS[name](**arguments)


def update_of(name, jacobian, **arguments):
    losses = np.ones(len(jacobian))
    aggregator = make(name, **arguments)
    update = aggregator(np.array(jacobian, "float32"), losses)
    return keras.ops.convert_to_numpy(update).astype("float64")


def close(one, other, tolerance=5e-3):
    return np.abs(one - other).max() <= tolerance * np.abs(other).max()


def is_non_conflicting(name):
    for T in SIZES:
        for seed in range(8):
            jacobian = jacobian_of(T, size=T + 1, seed=seed, spread=1.0)
            update = update_of(name, jacobian)
            lengths = np.linalg.norm(jacobian, axis=1) * np.linalg.norm(update)
            if (jacobian @ update < -2e-3 * lengths).any():
                return False
    return True


def is_order_free(name):
    for T in SIZES:
        for seed in range(4):
            jacobian = jacobian_of(T, seed=seed, spread=1.0)
            order = np.random.default_rng(seed).permutation(T)
            if not close(update_of(name, jacobian[order]), update_of(name, jacobian)):
                return False
    return True


def is_linear(name):
    """A(diag(c) J) is linear in c, for positive c."""
    for T in SIZES:
        for seed in range(4):
            jacobian = jacobian_of(T, seed=seed)
            one, other = np.random.default_rng(seed).uniform(0.2, 2, size=(2, T, 1))
            mixed = update_of(name, (0.5 * one + 1.5 * other) * jacobian)
            expected = 0.5 * update_of(name, one * jacobian)
            expected += 1.5 * update_of(name, other * jacobian)
            if not close(mixed, expected):
                return False
    return True


def is_scale_free(name):
    """The direction does not change if the loss of one task is multiplied."""
    for T in SIZES:
        for seed in range(4):
            jacobian = jacobian_of(T, seed=seed)
            scaled = jacobian.copy()
            scaled[0] *= 20.0
            one, other = update_of(name, jacobian), update_of(name, scaled)
            one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
            if not close(one, other, 1e-2):
                return False
    return True


def is_stationary(name):
    """The update is 0 where a mean of the gradients with positive weights is."""
    for T in SIZES:
        for seed in range(4):
            jacobian = stationary_jacobian(T, seed)
            size = np.linalg.norm(jacobian, axis=1).max()
            if np.linalg.norm(update_of(name, jacobian)) > 1e-2 * size:
                return False
    return True


CHECKS = {
    "non-conflicting": is_non_conflicting,
    "order-free": is_order_free,
    "linear": is_linear,
    "scale-free": is_scale_free,
    "stationary": is_stationary,
}


def test_every_method_is_in_the_table():
    assert sorted(CLAIMS) == aggregation.names()


@pytest.mark.parametrize("property_", PROPERTIES)
@pytest.mark.parametrize("name", aggregation.names())
def test_property(name, property_):
    assert CHECKS[property_](name) == CLAIMS[name][property_]
