"""All backends give the same updates for the same gradients.

A process has one backend, so each backend has one of its own: this file, as a script,
writes the updates of every method to the file that it is given.
"""

import importlib.util
import itertools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from reference import jacobian_of

from keras_mtl import aggregation

BACKENDS = ("tensorflow", "jax", "torch")
PAIRS = list(itertools.combinations(BACKENDS, 2))
SIZES = (2, 3, 8)
STEPS = 2  # the second with what the first left in the state
TOLERANCE = 1e-5  # of the largest entry: float32, through the solution of a system


def gradients(name, T, seed):
    """A Jacobian for which the numbers that a method draws make no difference.

    One seed gives other numbers on every backend.
    """
    if name in ("pcgrad", "grad_vac"):
        # Tasks 0 and 1, 2 and 3 ... conflict, each pair in a plane of its own: a
        # gradient has one other to be projected on, in whatever order.
        pair = np.arange(T) // 2
        rows = jacobian_of(T, size=T, seed=seed) * (pair[:, None] == pair)
        rows[1::2] -= 2 * rows[:-1:2]
        return rows
    rows = jacobian_of(T, seed=seed, spread=0.3)
    if name == "grad_drop":
        # All tasks have one sign in each coordinate, which is kept for certain.
        return np.abs(rows) * np.sign(rows[0])
    return rows


def updates():
    """The updates of all methods, {method and case: (P,)}."""
    found = {}
    for name, T in itertools.product(aggregation.names(), SIZES):
        aggregator = aggregation.get(name)
        for step in range(STEPS):
            losses = np.random.default_rng(step).uniform(0.5, 2, size=T)
            jacobian = gradients(name, T, seed=10 * T + step)
            update = aggregator(jacobian.astype("float32"), losses.astype("float32"))
            found[f"{name}, {T} tasks, step {step}"] = keras.ops.convert_to_numpy(
                update
            )
    return found


@pytest.fixture(scope="module")
def by_backend(tmp_path_factory):
    """The updates by backend, of those that are installed."""
    directory = tmp_path_factory.mktemp("updates")
    running = {}
    for backend in filter(importlib.util.find_spec, BACKENDS):
        environment = {**os.environ, "KERAS_BACKEND": backend}
        # Uncompiled, JAX is faster: it would compile every loop of every call anew.
        environment["JAX_DISABLE_JIT"] = "1"
        running[backend] = subprocess.Popen(
            [sys.executable, __file__, directory / f"{backend}.npz"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
    for backend, process in running.items():
        errors = process.communicate()[1]
        assert process.returncode == 0, f"{backend}: {errors[-3000:]}"
    return {backend: np.load(directory / f"{backend}.npz") for backend in running}


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_updates(by_backend, one, other):
    for backend in (one, other):
        if backend not in by_backend:
            pytest.skip(f"{backend} is not installed")
    assert by_backend[one].files == by_backend[other].files
    for case in by_backend[one].files:
        update = by_backend[one][case]
        np.testing.assert_allclose(
            update,
            by_backend[other][case],
            rtol=0,
            atol=TOLERANCE * np.abs(update).max(),
            err_msg=case,
        )


if __name__ == "__main__":
    np.savez(pathlib.Path(sys.argv[1]), **updates())
