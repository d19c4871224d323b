import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_jit,
    check_layer,
    check_mask,
    check_padding,
    slow_to_compile,
)

from keras_mtl.layers import TaskRouting

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
BY_TASK = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}
POLICY = [[1, 0], [0, 1], [0, 0]]


def to_numpy(x):
    return ops.convert_to_numpy(x)


def blocks(count=2):
    return [keras.layers.Dense(5, "tanh") for _ in range(count)]


@pytest.mark.parametrize(
    "inputs",
    [X, BY_TASK, list(BY_TASK.values())],
    ids=["one", "dict", "list"],
)
@pytest.mark.parametrize("policy", [None, POLICY], ids=["learned", "fixed"])
def test_layer(inputs, policy):
    check_layer(lambda: TaskRouting(blocks(), TASKS, policy=policy), (inputs,))


def test_layer_with_every_argument():
    check_layer(
        lambda: TaskRouting(
            blocks(3),
            ("a", "b"),
            sparsity=0.1,
            sharing=0.2,
            temperature=2.0,
            decay=0.9,
            decay_steps=5,
            warmup_steps=1,
            curriculum_steps=2,
            seed=4,
        ),
        (X,),
    )


def test_mask():
    steps = RNG.normal(size=(10, 4, 5))
    steps[2:5, 1:] = 0
    check_mask(lambda: TaskRouting(blocks(), TASKS), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: TaskRouting(blocks(), TASKS), (X,))


def by_hand(layer, x_of, policy):
    outputs = {}
    for t, name in enumerate(TASKS):
        h = x_of[name]
        for runs, block in zip(policy[t], layer.blocks, strict=True):
            h = h + runs * to_numpy(block(h))
        outputs[name] = h
    return outputs


@pytest.mark.parametrize("inputs", [X, BY_TASK], ids=["one", "dict"])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_task_runs_its_blocks_and_skips_the_others(inputs, fixed):
    layer = TaskRouting(blocks(), TASKS, policy=POLICY if fixed else None)
    layer(inputs)
    if not fixed:
        layer.logits.assign(2.0 * np.array(POLICY) - 1)
    outputs = layer(inputs)
    x_of = inputs if isinstance(inputs, dict) else dict.fromkeys(TASKS, inputs)
    for name, expected in by_hand(layer, x_of, POLICY).items():
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)
    np.testing.assert_array_equal(layer.learned_policy(), np.array(POLICY) > 0)


def test_a_fixed_policy_has_no_parameters_and_no_losses():
    layer = TaskRouting(blocks(), TASKS, policy=POLICY)
    layer(X, training=True)
    assert len(layer.weights) == 4
    assert not layer.losses


def test_inference_is_deterministic_and_training_draws():
    layer = TaskRouting(blocks(3), TASKS, seed=1)
    layer(X)
    layer.logits.assign(0.1 * np.ones((3, 3)))
    np.testing.assert_array_equal(to_numpy(layer(X)["a"]), to_numpy(layer(X)["a"]))
    drawn = [to_numpy(layer(X, training=True)["a"]) for _ in range(8)]
    assert len({y.tobytes() for y in drawn}) > 1


def test_draws_are_of_the_probability_and_hard():
    layer = TaskRouting(blocks(1), ["a"], seed=1)
    layer(X)
    layer.logits.assign([[np.log(3.0)]])  # runs in 3 of 4 steps
    run = X + to_numpy(layer.blocks[0](X))
    counts = []
    for _ in range(400):
        y = to_numpy(layer(X, training=True)["a"])
        is_run = np.allclose(y, run, atol=1e-5)
        assert is_run or np.allclose(y, X, atol=1e-5)
        counts.append(is_run)
    assert np.mean(counts) == pytest.approx(0.75, abs=0.07)


def test_losses_are_those_of_the_paper():
    layer = TaskRouting(blocks(3), TASKS, sparsity=0.3, sharing=0.7)
    layer(X)
    logits = RNG.normal(size=(3, 3)).astype("float32")
    layer.logits.assign(logits)
    layer(X, training=True)
    alpha = 1 / (1 + np.exp(-logits))
    sharing = sum(
        (3 - depth) / 3 * abs(alpha[s, depth] - alpha[t, depth])
        for depth in range(3)
        for t in range(3)
        for s in range(t)
    )
    expected = 0.3 * np.log(alpha).sum() + 0.7 * sharing
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)


def test_warm_up_and_curriculum():
    """First all blocks run, then the last is routed, then one more."""
    layer = TaskRouting(
        blocks(2), ["a"], warmup_steps=2, curriculum_steps=3, sparsity=0, sharing=0
    )
    layer(X)
    layer.logits.assign([[-50.0, -50.0]])  # a routed block is never run
    both = by_steps = []
    for _ in range(8):
        by_steps.append(to_numpy(layer(X, training=True)["a"]))
    first = X + to_numpy(layer.blocks[0](X))
    both = first + to_numpy(layer.blocks[1](first))
    for step, y in enumerate(by_steps):
        expected = both if step < 2 else first if step < 5 else X
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_learns_that_a_block_harms_one_task_and_helps_another():
    x = RNG.normal(size=(256, 5)).astype("float32")
    double = keras.layers.Lambda(lambda h: 1.0 * h)
    inputs = keras.Input((5,))
    keras.utils.set_random_seed(0)
    layer = TaskRouting([double], ["twice", "same"], sparsity=0.0, sharing=0.0)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.Adam(0.1), {"twice": "mse", "same": "mse"})
    model.fit(x, {"twice": 2 * x, "same": x}, epochs=20, verbose=0)
    np.testing.assert_array_equal(layer.learned_policy(), [[True], [False]])
    outputs = model.predict(x, verbose=0)
    np.testing.assert_allclose(outputs["twice"], 2 * x, atol=1e-5)
    np.testing.assert_allclose(outputs["same"], x, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"blocks": []}, "`blocks` must be a list of layers"),
        ({"blocks": ["dense"]}, "`blocks` must be a list of layers"),
        ({"sparsity": -1}, "`sparsity` must be a finite number"),
        ({"temperature": 0}, "`temperature` must be a finite number greater than 0"),
        ({"decay": 2}, "`decay` must be a finite number"),
        ({"decay_steps": 0}, "`decay_steps` must be a whole number of at least 1"),
        ({"policy": [[1, 0]]}, "`policy` must have a row for each task"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        TaskRouting(**{"blocks": blocks(), "task_names": TASKS, **arguments})
    assert "Received: " in str(error.value)


def test_refuses_a_block_that_changes_the_shape():
    with pytest.raises(ValueError, match=r"must not change the shape.*Received: "):
        TaskRouting([keras.layers.Dense(3)], TASKS)(X)


def test_refuses_to_show_a_policy_before_it_is_built():
    with pytest.raises(ValueError, match=r"no policy before it is built.*Received: "):
        TaskRouting(blocks(), TASKS).learned_policy()


@pytest.mark.parametrize("policy", [None, [[1, 1], [0, 1]]], ids=["learned", "fixed"])
@pytest.mark.parametrize("by_task", [False, True])
def test_padding_changes_nothing(by_task, policy):
    def make():
        blocks = [
            keras.layers.Bidirectional(
                keras.layers.GRU(2, return_sequences=True, bias_initializer="normal"),
                merge_mode="sum",
            )
            for _ in range(2)
        ]
        return TaskRouting(blocks, ["a", "b"], policy=policy)

    steps = RNG.normal(size=(6, 4, 2)).astype("float32")
    check_padding(make, {"a": steps, "b": steps + 1} if by_task else steps)


def test_blocks_that_are_not_routed_yet_are_run_at_inference():
    layer = TaskRouting(
        [keras.layers.Dense(3, kernel_initializer="ones") for _ in range(2)],
        ["a", "b"],
        warmup_steps=1,
        curriculum_steps=1,
    )
    x = np.ones((2, 3), "float32")
    layer(x)
    layer.logits.assign(np.full((2, 2), -9.0))
    expected = [[[True, True]] * 2, [[True, False]] * 2, [[False, False]] * 2]
    for policy in expected:
        np.testing.assert_array_equal(layer.learned_policy(), policy)
        runs = sum(policy[0])
        np.testing.assert_allclose(to_numpy(layer(x)["a"])[0], 4.0**runs)
        layer(x, training=True)
