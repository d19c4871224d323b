"""Meta networks: their gradients, what fast weights start from, and who reads whom."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from keras.ops import convert_to_tensor as tensor

from keras_mtl import learners
from keras_mtl.learners.fast_weights import (
    ExampleLevelWeights,
    TaskLevelWeights,
    as_moderate,
)

TASKS, SHOTS, QUERIES, FEATURES = 2, 4, 3, 5


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def network(**arguments):
    keras.utils.set_random_seed(0)
    learner = learners.MetaNetwork(
        output_dim=2, distribution=None, hidden=6, maker_units=3, **arguments
    )
    learner.build({"support_x": (None, None, FEATURES)})
    return learner


def slow_kernels(learner):
    return [to_numpy(layer.kernel) for layer in (learner.first, learner.last)]


def answers(learner, x, y, query, mask=None):
    mask = np.ones(x.shape[:2], "bool") if mask is None else mask
    phi = learner.adapt(x, y, mask)
    return to_numpy(learner.predict(phi, query))


@pytest.fixture
def episode():
    return (
        draw(TASKS, SHOTS, FEATURES),
        draw(TASKS, SHOTS, 2, seed=1),
        draw(TASKS, QUERIES, FEATURES, seed=2),
    )


@pytest.mark.parametrize("of_task", [False, True])
def test_gradients_are_those_of_the_squared_error(episode, of_task):
    """Against differences of the loss in each number of both kernels."""
    learner, (x, y, _) = network(), episode
    task = [draw(TASKS, FEATURES, 6, seed=3), draw(TASKS, 6, 2, seed=4)]
    task = task if of_task else []
    found = [
        to_numpy(g).sum(axis=1)
        for g in learner._gradients(tensor(x), tensor(y), [tensor(t) for t in task])
    ]
    kernels = [
        np.float64(to_numpy(layer.kernel)) for layer in (learner.first, learner.last)
    ]

    def loss(of, kernels):
        first, last = kernels
        hidden = np.maximum(x[of] @ first, 0)
        raw = hidden @ last
        if task:
            hidden = hidden + np.maximum(x[of] @ task[0][of], 0)
            raw = hidden @ (last + task[1][of])
        return ((raw - y[of]) ** 2).sum()

    for which, kernel in enumerate(kernels):
        for of in range(TASKS):
            for place in np.ndindex(kernel.shape):
                there = []
                for step in (1e-5, -1e-5):
                    moved = [k.copy() for k in kernels]
                    moved[which][place] += step
                    there.append(loss(of, moved))
                expected = (there[0] - there[1]) / 2e-5
                assert found[which][of][place] == pytest.approx(
                    expected, rel=1e-3, abs=1e-3
                )


def test_with_makers_that_make_nothing_slow_weights_answer(episode):
    learner, (x, y, query) = network(), episode
    # The layers of its makers are built by a call.
    answers(learner, x, y, query)
    for maker in (*learner.of_examples, *learner.of_task):
        for variable in maker.variables:
            variable.assign(np.zeros(variable.shape))
    first, last = slow_kernels(learner)
    expected = np.maximum(query @ first, 0) @ last
    np.testing.assert_allclose(answers(learner, x, y, query), expected, atol=1e-5)


@pytest.mark.parametrize("task_weights", [False, True])
def test_examples_share_what_they_say_by_weights_of_the_task(episode, task_weights):
    """Without them, and with keys alike, each example speaks for itself.

    A network whose last fast weights alone are made, and whose keys are all the same,
    answers with the mean over examples of what it answers to each of them alone.
    """
    learner, (x, y, query) = network(task_weights=task_weights), episode
    answers(learner, x, y, query)
    learner.key.kernel.assign(np.zeros((FEATURES, 6)))
    learner.key.bias.assign(np.ones(6))
    for variable in (*learner.of_keys.variables, *learner.of_examples[0].variables):
        variable.assign(np.zeros(variable.shape))
    together = answers(learner, x, y, query)
    alone = [
        answers(learner, x[:, i : i + 1], y[:, i : i + 1], query) for i in range(SHOTS)
    ]
    gap = np.abs(together - np.mean(alone, axis=0)).max()
    assert (gap > 1e-3) == task_weights


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1.0, 1e10])
def test_gradients_of_all_sizes_are_moderate_and_keep_their_sign(scale):
    gradient = draw(50) * np.float32(scale)
    size, sign = np.moveaxis(to_numpy(as_moderate(tensor(gradient))), -1, 0)
    assert np.isfinite(size).all() and np.abs(size).max() <= 5
    assert (np.sign(sign) == np.sign(gradient)).all() and np.abs(sign).max() <= 1


def test_an_example_level_maker_starts_with_a_step_of_descent():
    maker = ExampleLevelWeights(3)
    gradients = draw(TASKS, SHOTS, FEATURES, 6)
    maker(gradients)
    for variable in maker.read.variables:
        variable.assign(np.zeros(variable.shape))
    np.testing.assert_allclose(to_numpy(maker(gradients)), -0.1 * gradients, rtol=1e-6)


def test_a_task_level_maker_leaves_out_examples_that_are_not_there():
    maker = TaskLevelWeights(3)
    gradients = draw(TASKS, SHOTS, FEATURES, 6)
    there = np.arange(SHOTS)[None] < np.array([[2], [SHOTS]])
    found = to_numpy(maker(gradients, there))
    two = to_numpy(maker(gradients[:, :2], there[:, :2]))
    np.testing.assert_allclose(found[0], two[0], atol=1e-6)
    maker.last.kernel.assign(np.zeros((3, 1)))
    found = to_numpy(maker(gradients, there))
    np.testing.assert_allclose(found[0], -0.1 * gradients[0, :2].mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1], -0.1 * gradients[1].mean(0), atol=1e-6)
