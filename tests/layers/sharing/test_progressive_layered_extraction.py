import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, check_mask, slow_to_compile

import keras_mtl
from keras_mtl.layers import (
    CustomizedGateControl,
    ProgressiveLayeredExtraction,
    SoftmaxGate,
)

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
STREAMS = {
    name: RNG.normal(size=(10, 5)).astype("float32") for name in [*TASKS, "shared"]
}


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize(
    "inputs",
    [X, STREAMS, list(STREAMS.values())],
    ids=["one", "dict", "list"],
)
def test_layer(inputs):
    check_layer(
        lambda: ProgressiveLayeredExtraction(TASKS, [(6, 4), 3], 2, 2), (inputs,)
    )


def test_layer_with_every_argument():
    def make():
        return ProgressiveLayeredExtraction(
            ("a", "b"),
            units=[4, 3, 2],
            task_experts=2,
            shared_experts=2,
            activation="tanh",
            use_bias=False,
            gate=SoftmaxGate(load_balance=0.1),
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (X,))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: ProgressiveLayeredExtraction(TASKS, [4, 3]), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: ProgressiveLayeredExtraction(TASKS, [4, 3]), (X,))


def test_is_levels_of_customized_gate_control():
    layer = ProgressiveLayeredExtraction(TASKS, [4, 3], 2, 2)
    outputs = layer(X)
    first = CustomizedGateControl(TASKS, 4, 2, 2, shared_gate=True)
    last = CustomizedGateControl(TASKS, 3, 2, 2)
    last(first(X))
    for level, copy in zip(layer.levels, (first, last), strict=True):
        copy.set_weights(level.get_weights())
    for name, expected in last(first(X)).items():
        np.testing.assert_allclose(
            to_numpy(outputs[name]), to_numpy(expected), atol=1e-6
        )


def test_one_level_is_customized_gate_control():
    layer = ProgressiveLayeredExtraction(TASKS, [3])
    outputs = layer(X)
    copy = CustomizedGateControl(TASKS, 3)
    copy.build(X.shape)
    copy.set_weights(layer.get_weights())
    for name, expected in copy(X).items():
        np.testing.assert_allclose(
            to_numpy(outputs[name]), to_numpy(expected), atol=1e-6
        )


def parts_that_move(layer, task):
    """By part, the tasks whose slices a step of one task moves; True if not stacked."""
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layer(inputs)[task])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    parts = [part for part, _ in layer.task_parts()]
    before = [[to_numpy(v).copy() for v in p.trainable_variables] for p in parts]
    model.train_on_batch(X, np.ones((10, 3)))
    moved = {}
    for part, values in zip(parts, before, strict=True):
        after = [to_numpy(v) for v in part.trainable_variables]
        moved[part.name] = [
            any(
                not np.array_equal(o[s], n[s])
                for o, n in zip(values, after, strict=True)
            )
            for s in range(len(values[0]))
        ]
    return moved


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_parts_are_a_tasks_own_where_no_other_task_trains_them(levels):
    """What `stacked_by_task` says is what gradients show."""
    layer = ProgressiveLayeredExtraction(
        TASKS, [3] * levels, activation="tanh", name="ple"
    )
    shown = {}
    for task in TASKS:
        for part, slices in parts_that_move(layer, task).items():
            shown.setdefault(part, {})[task] = slices
    for part, _ in layer.task_parts():
        own = getattr(part, "stacked_by_task", False)
        by_task = shown[part.name]
        for t, task in enumerate(TASKS):
            only_its_own = by_task[task] == [s == t for s in range(len(TASKS))]
            assert only_its_own == own, (part.name, task, by_task)


def test_sharing_summary():
    inputs = keras.Input((5,))
    layer = ProgressiveLayeredExtraction(TASKS, [4, 3], name="ple")
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    kinds = {name: row.kind for name, row in rows.items() if name.startswith("ple")}
    assert kinds == {
        "ple_level_0_task_experts": "shared",
        "ple_level_0_shared_experts": "shared",
        "ple_gate_0": "stacked",
        "ple_gate_0_shared": "shared",
        "ple_level_1_task_experts": "stacked",
        "ple_level_1_shared_experts": "shared",
        "ple_gate_1": "stacked",
    }


def test_gates_of_all_levels_are_logged():
    inputs = keras.Input((5,))
    layer = ProgressiveLayeredExtraction(["a", "b"], [4, 3], name="ple")
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile("sgd", "mse")
    y = {name: np.zeros(10) for name in "ab"}
    logs = model.train_on_batch(X, y, return_dict=True)
    entropies = [name for name in logs if name.endswith("entropy")]
    assert sorted(entropies) == [
        "a_ple_gate_0_entropy",
        "a_ple_gate_1_entropy",
        "b_ple_gate_0_entropy",
        "b_ple_gate_1_entropy",
        "shared_ple_gate_0_shared_entropy",
    ]
    assert all(0 < logs[name] <= 1 + 1e-6 for name in entropies)


@pytest.mark.parametrize("units", [3, [], None])
def test_refuses_what_are_no_levels(units):
    with pytest.raises(ValueError, match=r"with the size of each level. Received"):
        ProgressiveLayeredExtraction(TASKS, units)
