import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, check_mask, slow_to_compile

import keras_mtl
from keras_mtl.layers import AdaTT, SoftmaxGate

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
BY_TASK = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}
STREAMS = {**BY_TASK, "shared": RNG.normal(size=(10, 5)).astype("float32")}


def to_numpy(x):
    return ops.convert_to_numpy(x)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def by_hand(layer, streams):
    def outputs(experts, x_of):
        kernel, bias = to_numpy(experts.kernels[0]), to_numpy(experts.biases[0])
        return [
            np.maximum(x_of(s) @ kernel[s] + bias[s], 0)
            for s in range(experts.num_stacks)
        ]

    m = layer.num_task_experts
    own = outputs(layer.task_experts, lambda s: streams[layer.task_names[s // m]])
    seen = list(own)
    if layer.shared_experts is not None:
        seen += outputs(layer.shared_experts, lambda s: streams["shared"])
    gates = to_numpy(layer.gate.logits.kernels[0])
    residual = np.ones((3, 1)) if layer.own is None else to_numpy(layer.own.weight)
    mixed = {}
    for t, name in enumerate(layer.task_names):
        weights = softmax(streams[name] @ gates[t])
        mixed[name] = sum(weights[..., e, None] * y for e, y in enumerate(seen))
        for e, y in enumerate(own[t * m : (t + 1) * m]):
            mixed[name] = mixed[name] + residual[t, e] * y
    if layer.shared_gate is not None:
        kernel = to_numpy(layer.shared_gate.logits.kernels[0])[0]
        weights = softmax(streams["shared"] @ kernel)
        mixed["shared"] = sum(weights[..., e, None] * y for e, y in enumerate(seen))
    return mixed


@pytest.mark.parametrize(
    "inputs, shared",
    [
        (X, 0),
        (STEPS, 2),
        (BY_TASK, 0),
        (list(BY_TASK.values()), 0),
        (STREAMS, 2),
        (list(STREAMS.values()), 2),
    ],
    ids=["one", "steps", "dict", "list", "streams", "list of streams"],
)
def test_layer(inputs, shared):
    check_layer(
        lambda: AdaTT(TASKS, (4, 3), 2, shared, shared_gate=shared > 0), (inputs,)
    )


def test_layer_with_every_argument():
    def make():
        return AdaTT(
            ("only",),
            units=4,
            task_experts=2,
            shared_experts=1,
            shared_gate=True,
            activation="tanh",
            use_bias=False,
            gate=SoftmaxGate(dropout=0.2, seed=1),
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (X,))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: AdaTT(TASKS, 3), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: AdaTT(TASKS, 3, 2), (X,))


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("shared", [0, 1, 2])
def test_is_what_its_formula_says(experts, shared):
    layer = AdaTT(
        TASKS, 3, experts, shared, shared_gate=shared > 0, bias_initializer="normal"
    )
    inputs = STREAMS if shared else BY_TASK
    outputs = layer(inputs)
    expected = by_hand(layer, STREAMS)
    assert sorted(outputs) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(to_numpy(outputs[name]), value, atol=1e-5)


def test_with_one_expert_a_task_the_residual_has_no_weight():
    layer = AdaTT(TASKS, 3)
    layer.build(X.shape)
    assert layer.own is None
    several = AdaTT(TASKS, 3, task_experts=4)
    several.build(X.shape)
    own = to_numpy(several.own.weight)
    assert own.shape == (3, 4) and np.abs(own).max() <= 0.5 and own.std() > 0.1


def test_all_tasks_train_all_experts():
    inputs = keras.Input((5,))
    layer = AdaTT(TASKS, 3, name="adatt")
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["adatt_task_experts"].kind == "shared"
    assert rows[layer.gate.name].kind == "stacked"


def test_gates_of_a_lower_layer_serve_all_tasks():
    inputs = keras.Input((5,))
    lower, upper = AdaTT(TASKS, 3), AdaTT(TASKS, 3)
    outputs = {n: keras.layers.Dense(1)(h) for n, h in upper(lower(inputs)).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows[lower.gate.name].kind == "shared"
    assert rows[upper.gate.name].kind == "stacked"


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"task_names": ["a", "shared"]}, "No task can be called 'shared'"),
        ({"task_experts": 0}, "`task_experts` must be a whole number of at least 1"),
        ({"shared_experts": -1}, "`shared_experts` must be a whole number of at"),
        ({"shared_gate": True}, "it needs `shared_experts`"),
        ({"units": ()}, "Dense experts need `units`"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        AdaTT(**{"task_names": TASKS, "units": 3, **arguments})
    assert "Received: " in str(error.value)
