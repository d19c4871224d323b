import math

import numpy as np
import pytest
from built_learner import adapted, answered, built, dense, sigmoid, softmax, to_numpy

from keras_mtl.learners import Recurrent


def lstm_step(cell, x, hidden, carry):
    """Returns one step of Keras's LSTM: gates are input, forget, candidate, output."""
    kernel, recurrent, bias = (
        to_numpy(v) for v in (cell.kernel, cell.recurrent_kernel, cell.bias)
    )
    i, f, c, o = np.split(x @ kernel + hidden @ recurrent + bias, 4, axis=-1)
    carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(c)
    return sigmoid(o) * np.tanh(carry), carry


def read_support(learner, inputs):
    cell = learner.recurrent_layers[0].cell
    hidden = carry = np.zeros((3, learner.units))
    tokens = np.concatenate([inputs["support_x"], inputs["support_y"]], -1)
    for token in tokens.transpose(1, 0, 2):
        hidden, carry = lstm_step(cell, token, hidden, carry)
    return hidden, carry


def with_zero_label(x):
    return np.concatenate([x, np.zeros((*x.shape[:-1], 3))], -1)


def test_phi_is_the_state_after_the_support():
    learner, inputs = built(Recurrent(ways=3, units=5))
    ((hidden, carry),) = adapted(learner, inputs)["states"]
    expected = read_support(learner, inputs)
    np.testing.assert_allclose(to_numpy(hidden), expected[0], atol=1e-5)
    np.testing.assert_allclose(to_numpy(carry), expected[1], atol=1e-5)


def test_each_query_is_the_step_after_the_support():
    learner, inputs = built(Recurrent(ways=3, units=5))
    state = read_support(learner, inputs)
    given = answered(learner, inputs)
    for index in range(4):
        x = with_zero_label(inputs["query_x"][:, index])
        hidden, _ = lstm_step(learner.recurrent_layers[0].cell, x, *state)
        expected = softmax(dense(learner.dense, hidden))
        np.testing.assert_allclose(given[:, index], expected, atol=1e-5)


def test_sequential_queries_are_one_sequence():
    learner, inputs = built(Recurrent(ways=3, units=5, query_mode="sequential"))
    state = read_support(learner, inputs)
    given = answered(learner, inputs)
    for index in range(4):
        x = with_zero_label(inputs["query_x"][:, index])
        state = lstm_step(learner.recurrent_layers[0].cell, x, *state)
        expected = softmax(dense(learner.dense, state[0]))
        np.testing.assert_allclose(given[:, index], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
@pytest.mark.parametrize("cell, head", [("lstm", "recurrent"), ("gru", "dense")])
def test_only_a_sequential_query_sees_those_before(mode, cell, head):
    learner, inputs = built(
        Recurrent(ways=3, units=5, cell=cell, query_mode=mode, head=head)
    )
    other = {**inputs, "query_x": inputs["query_x"].copy()}
    other["query_x"][:, 1] += 2
    changed = np.abs(answered(learner, inputs) - answered(learner, other)).max((0, 2))
    assert changed[0] < 1e-6 < changed[1]
    if mode == "parallel":
        assert (changed[2:] < 1e-6).all()
    else:
        assert (changed[2:] > 1e-6).all()


def test_the_first_sequential_query_is_a_parallel_one():
    parallel, inputs = built(Recurrent(ways=3, units=5, depth=2))
    sequential, _ = built(Recurrent(ways=3, units=5, depth=2, query_mode="sequential"))
    sequential.set_weights(parallel.get_weights())
    np.testing.assert_allclose(
        answered(parallel, inputs)[:, 0], answered(sequential, inputs)[:, 0], atol=1e-5
    )


def test_a_recurrent_head_cannot_get_below_0433():
    learner = Recurrent(ways=5, units=8, query_mode="sequential", head="recurrent")
    learner, inputs = built(learner, 30.0, support=10, queries=20)
    best = answered(learner, inputs).max()
    assert -math.log(best) >= 0.4327
    assert best <= math.e / (math.e + 4 / math.e) + 1e-6


def test_the_least_loss_of_a_recurrent_head_is_0433():
    learner = Recurrent(ways=5, units=2, query_mode="sequential", head="recurrent")
    learner, inputs = built(learner, 0.0, support=10, queries=20)
    bias = np.zeros((4, 5))
    bias[[0, 1, 3]] = 50  # gates are open
    bias[2] = [50, -50, -50, -50, -50]
    cell = learner.recurrent_layers[-1].cell
    cell.kernel.assign(np.zeros(cell.kernel.shape))
    cell.recurrent_kernel.assign(np.zeros(cell.recurrent_kernel.shape))
    cell.bias.assign(bias.ravel())
    loss = -np.log(answered(learner, inputs)[0, -1, 0])
    np.testing.assert_allclose(loss, 0.4327, atol=1e-4)


def test_a_dense_head_gets_below_0433():
    learner, inputs = built(Recurrent(ways=5, units=8), 30.0, support=10)
    assert -np.log(answered(learner, inputs).max()) < 0.01
