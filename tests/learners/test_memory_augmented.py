import math

import numpy as np
import pytest
from built_learner import (
    adapted,
    answered,
    built,
    dense,
    sigmoid,
    softmax,
    softplus,
    to_numpy,
)
from every_learner import episodes

from keras_mtl.learners import MemoryAugmented
from keras_mtl.learners.least_recently_used_memory import LeastRecentlyUsedMemory

SIZES = {"units": 5, "slots": 7, "slot_size": 4, "reads": 2}


def make(**kwargs):
    return built(MemoryAugmented(ways=3, **{**SIZES, **kwargs}))


def some_states(cell, tasks=3, seed=0):
    """Returns states in which no two rows were used alike."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(tasks, cell.output_size)),
        rng.normal(size=(tasks, cell.units)),
        rng.normal(size=(tasks, cell.slots, cell.slot_size)),
        softmax(rng.normal(size=(tasks, cell.reads, cell.slots))),
        rng.uniform(0, 2, size=(tasks, cell.slots)),
    ]


def take_step(cell, token, states):
    """Returns the output and states after a step."""
    inputs = np.concatenate([token, np.ones((len(token), 1))], -1).astype("float32")
    output, following = cell(inputs, [s.astype("float32") for s in states])
    return to_numpy(output), [to_numpy(s) for s in following]


def lstm_step(cell, x, hidden, carry):
    kernel, recurrent, bias = (
        to_numpy(v) for v in (cell.kernel, cell.recurrent_kernel, cell.bias)
    )
    i, f, c, o = np.split(x @ kernel + hidden @ recurrent + bias, 4, axis=-1)
    carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(c)
    return sigmoid(o) * np.tanh(carry), carry


def reference_step(cell, token, states, decay):
    """Returns the states after a step, one task and one head after the other."""
    size, units = cell.slot_size, cell.units
    output, carry, memory, read_weight, usage = (np.array(s) for s in states)
    x = np.concatenate([token, output[:, units:]], -1)
    hidden, carry = lstm_step(cell.controller, x, output[:, :units], carry)
    said = dense(cell.interface, hidden).reshape(len(x), cell.reads, -1)
    reads = np.zeros((len(x), cell.reads, size))
    for task in range(len(x)):
        rows = np.argsort(usage[task])[: cell.reads]
        memory[task, rows[0]] = 0
        usage[task] *= decay
        keys = np.tanh(said[task, :, :size])
        for head, row in enumerate(rows):
            gate = sigmoid(said[task, head, -1])
            write_weight = gate * read_weight[task, head]
            write_weight[row] += 1 - gate
            written = keys[head]
            if cell.separate_write:
                written = np.tanh(said[task, head, size : 2 * size])
            memory[task] += np.outer(write_weight, written)
            usage[task] += write_weight
        for head, key in enumerate(keys):
            lengths = np.linalg.norm(memory[task], axis=-1) * np.linalg.norm(key)
            strength = 1.0
            if cell.read_strength:
                strength = softplus(said[task, head, -2] + 10)
            weight = softmax(strength * (memory[task] @ key) / lengths)
            read_weight[task, head] = weight
            reads[task, head] = weight @ memory[task]
            usage[task] += weight
    output = np.concatenate([hidden, reads.reshape(len(x), -1)], -1)
    return [output, carry, memory, read_weight, usage]


@pytest.mark.parametrize("strength, separate", [(True, False), (False, True)])
def test_steps_follow_the_equations(strength, separate):
    learner, inputs = make(
        usage_decay=0.8, read_strength=strength, separate_write=separate
    )
    cell = learner.memory
    states = some_states(cell)
    tokens = np.concatenate([inputs["support_x"], inputs["support_y"]], -1)
    for token in tokens.transpose(1, 0, 2)[:3]:
        expected = reference_step(cell, token, states, 0.8)
        output, states = take_step(cell, token, states)
        np.testing.assert_allclose(output, expected[0], atol=1e-4)
        for one, other in zip(states, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def mute(cell, gate):
    """Makes keys that are constant, and gates alike."""
    cell.interface.kernel.assign(np.zeros(cell.interface.kernel.shape))
    bias = np.zeros((cell.reads, cell.interface.units // cell.reads))
    bias[:, : cell.slot_size] = gate and 1.0
    bias[:, -1] = gate
    cell.interface.bias.assign(bias.ravel())


def test_one_row_is_erased_the_least_used():
    learner, inputs = make()
    mute(learner.memory, 0.0)  # Keys are zero: so is what is written.
    states = some_states(learner.memory)
    _, after = take_step(learner.memory, _token(inputs), states)
    erased = (after[2] == 0).all(-1)
    np.testing.assert_array_equal(erased.sum(-1), [1, 1, 1])
    np.testing.assert_array_equal(erased.argmax(-1), states[4].argmin(-1))
    np.testing.assert_allclose(after[2][~erased], states[2][~erased], atol=1e-6)


def test_the_least_used_rows_are_written_not_the_most():
    learner, inputs = make()
    mute(learner.memory, -50.0)
    states = some_states(learner.memory)
    _, after = take_step(learner.memory, _token(inputs), states)
    written = np.abs(after[2] - states[2]).max(-1) > 1e-6
    expected = np.argsort(np.argsort(states[4], -1), -1) < 2
    np.testing.assert_array_equal(written, expected)


def test_an_open_gate_writes_where_was_read():
    learner, inputs = make()
    mute(learner.memory, 50.0)
    states = some_states(learner.memory)
    _, after = take_step(learner.memory, _token(inputs), states)
    kept = states[2] * (states[4] > states[4].min(-1, keepdims=True))[..., None]
    written = states[3].sum(1)[..., None] * np.tanh(1.0)
    np.testing.assert_allclose(after[2], kept + written, atol=1e-5)


def test_a_step_that_is_not_there_changes_nothing():
    learner, inputs = make()
    states = [s.astype("float32") for s in some_states(learner.memory)]
    token = np.concatenate([_token(inputs), np.zeros((3, 1))], -1).astype("float32")
    _, after = learner.memory(token, states)
    for one, other in zip(after, states, strict=True):
        np.testing.assert_array_equal(to_numpy(one), other)


def test_without_a_strength_weights_are_at_most_0055():
    cell = LeastRecentlyUsedMemory(
        units=5,
        slots=128,
        slot_size=4,
        reads=2,
        usage_decay=0.95,
        read_strength=False,
        separate_write=False,
        controller_dtype="float32",
    )
    states = some_states(cell)
    token = np.zeros((3, 9))
    take_step(cell, token, states)
    # The best case: the row of the key, and all others its opposite.
    mute(cell, -50.0)
    states[2][:] = -1.0
    weight = take_step(cell, token, states)[1][3]
    bound = math.e / (math.e + 127 / math.e)
    assert weight.max() <= bound + 1e-6 and bound < 0.0551
    assert weight.max() > 0.05


def test_a_query_is_the_step_after_the_support():
    learner, inputs = make()
    states = [to_numpy(s) for s in adapted(learner, inputs)["states"]]
    token = np.concatenate([inputs["query_x"][:, 2], np.zeros((3, 3))], -1)
    output = reference_step(learner.memory, token, states, 0.95)[0]
    expected = softmax(dense(learner.head, output))
    np.testing.assert_allclose(answered(learner, inputs)[:, 2], expected, atol=1e-4)


def test_memory_is_wiped_for_every_task():
    learner, inputs = make()
    before = answered(learner, inputs)
    np.testing.assert_array_equal(before, answered(learner, inputs))


def test_a_step_is_told_the_label_before_and_not_its_own():
    learner, inputs = make(protocol="every_step")
    x, y = inputs["support_x"], inputs["support_y"]
    before = to_numpy(learner.predict_steps(x, y))
    for step in (1, 4):
        other = y.copy()
        other[:, step] = np.roll(other[:, step], 1, axis=-1)
        change = np.abs(to_numpy(learner.predict_steps(x, other)) - before).max((0, 2))
        assert (change[: step + 1] < 1e-6).all()
        assert change[step + 1] > 1e-5


def test_a_step_does_not_see_later_examples():
    learner, inputs = make(protocol="every_step")
    x, y = inputs["support_x"], inputs["support_y"]
    other = x.copy()
    other[:, 3] += 1
    before, after = (to_numpy(learner.predict_steps(z, y)) for z in (x, other))
    change = np.abs(after - before).max((0, 2))
    assert (change[:3] < 1e-6).all() and (change[3:] > 1e-6).all()


def test_a_query_is_the_last_of_the_steps():
    learner, inputs = make(protocol="every_step")
    x = np.concatenate([inputs["support_x"], inputs["query_x"][:, :1]], 1)
    y = np.concatenate([inputs["support_y"], inputs["support_y"][:, :1]], 1)
    steps = to_numpy(learner.predict_steps(x, y))
    np.testing.assert_allclose(steps[:, -1], answered(learner, inputs)[:, 0], atol=1e-5)


def test_steps_stay_at_their_place_where_others_are_not_there():
    learner, inputs = make(protocol="every_step")
    x, y = inputs["support_x"], inputs["support_y"]
    mask = np.array([[0, 1, 0, 1, 1, 1], [1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 0, 0]], bool)
    given = to_numpy(learner.predict_steps(x, y, mask))
    for task, there in enumerate(mask):
        alone = learner.predict_steps(
            x[task : task + 1, there], y[task : task + 1, there]
        )
        np.testing.assert_allclose(given[task, there], to_numpy(alone)[0], atol=1e-5)


def test_the_objective_is_the_mean_over_the_steps_of_an_episode():
    learner, inputs = make(protocol="every_step")
    mask = inputs["support_mask"]
    mask[:, 1] = False
    mask[0, 3:] = False
    labels = episodes(learner)[1]
    asked = np.ones((3, 4), bool)
    asked[1, 2:] = False

    def loss(y, predicted, there):
        each = -np.log((to_numpy(y) * to_numpy(predicted)).sum(-1))
        there = to_numpy(there)
        return ((there * each).sum(1) / there.sum(1)).mean()

    x, y = (inputs[f"support_{key}"] for key in ("x", "y"))
    of_support = -np.log((to_numpy(learner.predict_steps(x, y, mask)) * y).sum(-1))
    of_queries = -np.log((to_numpy(learner(inputs)) * labels).sum(-1))
    expected = [
        np.concatenate([of_support[i][mask[i]], of_queries[i][asked[i]]]).mean()
        for i in range(3)
    ]
    np.testing.assert_allclose(
        to_numpy(learner.objective(inputs, labels, asked, loss)),
        np.mean(expected),
        rtol=1e-5,
    )


def _token(inputs):
    return np.concatenate([inputs["support_x"][:, 0], inputs["support_y"][:, 0]], -1)
