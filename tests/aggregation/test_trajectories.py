"""Descent on convex problems of two tasks ends in their Pareto set.

The losses are (x - u_k)' A_k (x - u_k) of two parameters, so the Pareto set is known:

    x(w) = (sum_k w_k A_k)^-1 sum_k w_k A_k u_k,  w in the simplex

The step falls linearly to 0, without which a method whose update has a length of its
own, whatever that of the gradients, would jump to and fro over the set.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl import aggregation

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="PyTorch goes through the loop in Python, which takes minutes; its updates "
    "are those of the other backends, see test_backends_agree.py",
)

STARTS = [(3, -2), (0, -3), (-4, 4), (-3, 4), (-3.5, -0.75)]
STEPS = 2000

# By problem: A, u, and the first step on the loss.
PROBLEMS = {
    # Elementwise: task k is the square of coordinate k.
    "EWQ": ([[[1, 0], [0, 0]], [[0, 0], [0, 1]]], [[0, 0], [0, 0]], 0.15),
    "CQF": (
        [[[1, 0.2], [0.2, 0.05]], [[3, -0.6], [-0.6, 0.2]]],
        [[1, 0], [-1, 0]],
        0.25,
    ),
    "HQF": ([[[2, -1], [-1, 2]], [[20, -10], [-10, 20]]], [[1, 0], [-10, 0]], 0.01),
}

# Gradients that point against each other up to 0.003 radians have, in float32, a
# correlation of -1, and the update is 0. On HQF that is up to 0.013 from the set.
TOLERANCE = 0.02

# Methods whose update has a length of its own: their steps are lengths.
FIRST_LENGTH = {"nash_mtl": 0.2, "fair_grad": 0.2, "db_mtl": 0.2}

# A step where one gradient is 0 is a step along 0 for them: they end where x1 or x2 is
# 0, which is weakly Pareto optimal.
END_ON_AN_AXIS = [("mgda", "EWQ"), ("moco", "EWQ")]

NOT_CLAIMED = {
    # In each coordinate it takes the sign of one task, drawn: noise as large as the
    # gradients, which on the set are not 0.
    ("grad_drop", "CQF"),
    ("grad_drop", "HQF"),
    # Its weights go on moving on the set, and the point runs after them.
    ("excess_mtl", "HQF"),
    # Squared gradients of 1e4 make its step on the weights jump from task to task.
    ("modo", "HQF"),
}

QUICK = ("mean", "imtl_g", "mgda")


class Descent(keras.Model):
    """Maps a problem, a start and a first step to where descent ends."""

    def __init__(self, aggregator):
        super().__init__()
        self.aggregator = aggregator
        self.aggregator.build_parts(2, [(2,)])

    def call(self, inputs):
        matrices, optima, start, first_step = (tensor[0] for tensor in inputs)

        def step(index, carry):
            x, state = carry
            away = (x[None] - optima)[:, :, None]
            half = ops.matmul(matrices, away)
            # Above 1: DB-MTL takes logarithms, which have no least value at 0.
            losses = 1.0 + ops.sum(half * away, axis=(1, 2))
            update, state = self.aggregator.stateless_call(
                [], state, 2.0 * half[:, :, 0], losses
            )
            left = 1.0 - ops.cast(index, "float32") / STEPS
            return x - first_step * left * update, state

        state = [ops.convert_to_tensor(v) for v in self.aggregator.variables]
        return ops.fori_loop(0, STEPS, step, (start, state))[0][None]


def descent(name):
    """Returns where a method ends, as a function of a problem and a start."""
    model = Descent(aggregation.get(name))
    model.compile(jit_compile=True)

    def end(problem, start):
        matrices, optima, first_step = PROBLEMS[problem]
        first_step = FIRST_LENGTH.get(name, first_step)
        inputs = [matrices, optima, start, first_step]
        inputs = [np.array([value], "float32") for value in inputs]
        return model.predict_on_batch(inputs)[0]

    return end


def pareto_set(problem):
    matrices, optima, _ = (np.array(part, "float64") for part in PROBLEMS[problem])
    share = np.linspace(1e-6, 1 - 1e-6, 20_001)
    weights = np.stack([share, 1 - share], axis=1)
    summed = np.einsum("nk,kij->nij", weights, matrices)
    target = np.einsum("nk,kij,kj->ni", weights, matrices, optima)
    return np.linalg.solve(summed, target[:, :, None])[:, :, 0]


def distance(point, problem):
    return np.linalg.norm(pareto_set(problem) - point, axis=1).min()


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in QUICK
        else pytest.param(name, marks=[pytest.mark.slow, pytest.mark.ci])
        for name in aggregation.names()
    ],
)
def test_descent_ends_in_the_pareto_set(name):
    end = descent(name)
    for problem in PROBLEMS:
        if (name, problem) in NOT_CLAIMED:
            continue
        for start in STARTS:
            point = end(problem, start)
            if (name, problem) in END_ON_AN_AXIS:
                far = np.abs(point).min()
            else:
                far = distance(point, problem)
            assert far < TOLERANCE, (problem, start, point)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_starts_are_not_there_yet(problem):
    for start in STARTS:
        assert distance(start, problem) > 10 * TOLERANCE
