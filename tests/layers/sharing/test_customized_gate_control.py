import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_half_precision_gradients,
    check_jit,
    check_layer,
    check_mask,
    slow_to_compile,
)

import keras_mtl
from keras_mtl.layers import CustomizedGateControl, DSelectK, SoftmaxGate

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
STREAMS = {
    name: RNG.normal(size=(10, 5)).astype("float32") for name in [*TASKS, "shared"]
}


def to_numpy(x):
    return ops.convert_to_numpy(x)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def by_hand(layer, streams):
    """All streams, written out expert by expert."""

    def outputs(experts, x_of):
        found = []
        for s in range(experts.num_stacks):
            h = x_of(s)
            for kernel, bias in zip(experts.kernels, experts.biases, strict=True):
                h = np.maximum(h @ to_numpy(kernel)[s] + to_numpy(bias)[s], 0)
            found.append(h)
        return found

    m = layer.num_task_experts
    own = outputs(layer.task_experts, lambda s: streams[layer.task_names[s // m]])
    shared = outputs(layer.shared_experts, lambda s: streams["shared"])
    gates = to_numpy(layer.gate.logits.kernels[0])
    mixed = {}
    for t, name in enumerate(layer.task_names):
        weights = softmax(streams[name] @ gates[t])
        seen = [*own[t * m : (t + 1) * m], *shared]
        mixed[name] = sum(weights[..., e, None] * y for e, y in enumerate(seen))
    if layer.shared_gate is not None:
        kernel = to_numpy(layer.shared_gate.logits.kernels[0])[0]
        weights = softmax(streams["shared"] @ kernel)
        seen = [*own, *shared]
        mixed["shared"] = sum(weights[..., e, None] * y for e, y in enumerate(seen))
    return mixed


@pytest.mark.parametrize("shared_gate", [False, True])
@pytest.mark.parametrize(
    "inputs",
    [X, STEPS, STREAMS, list(STREAMS.values())],
    ids=["one", "steps", "dict", "list"],
)
def test_layer(inputs, shared_gate):
    check_layer(
        lambda: CustomizedGateControl(TASKS, (6, 3), 2, 3, shared_gate=shared_gate),
        (inputs,),
    )


def test_layer_with_every_argument():
    def make():
        return CustomizedGateControl(
            ("only",),
            units=4,
            task_experts=2,
            shared_experts=2,
            shared_gate=True,
            activation="tanh",
            use_bias=False,
            gate=SoftmaxGate(dropout=0.2, seed=1),
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (X,))


def test_with_dselect_k():
    check_layer(lambda: CustomizedGateControl(TASKS, 3, 2, 2, gate=DSelectK(k=2)), (X,))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: CustomizedGateControl(TASKS, 3, shared_gate=True), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: CustomizedGateControl(TASKS, 3, shared_gate=True), (X,))


def test_half_precision():
    check_half_precision_gradients(
        lambda: CustomizedGateControl(TASKS, 4, activation="linear"), (X,)
    )


@pytest.mark.parametrize("shared_gate", [False, True])
@pytest.mark.parametrize("m", [1, 2])
def test_is_what_its_formula_says(shared_gate, m):
    layer = CustomizedGateControl(
        TASKS, (6, 3), m, 2, shared_gate=shared_gate, bias_initializer="normal"
    )
    for inputs in (STREAMS, X):
        streams = inputs if isinstance(inputs, dict) else dict.fromkeys(STREAMS, X)
        outputs = layer(inputs)
        expected = by_hand(layer, streams)
        assert sorted(outputs) == sorted(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(to_numpy(outputs[name]), value, atol=1e-5)


def gradients_move(layer, task, inputs=X):
    """Whether a step of one task moves each slice of the experts of all tasks."""
    symbolic = keras.Input(inputs.shape[1:])
    model = keras.Model(symbolic, layer(symbolic)[task])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = [to_numpy(k).copy() for k in layer.task_experts.kernels]
    model.train_on_batch(inputs, np.ones((len(inputs), 3)))
    after = [to_numpy(k) for k in layer.task_experts.kernels]
    return [
        any(not np.array_equal(b[s], a[s]) for b, a in zip(before, after, strict=True))
        for s in range(layer.task_experts.num_stacks)
    ]


@pytest.mark.parametrize("task", TASKS)
def test_experts_of_a_task_get_no_gradient_from_another(task):
    layer = CustomizedGateControl(TASKS, 3, task_experts=2, shared_gate=True)
    owners = np.repeat(TASKS, 2)
    assert gradients_move(layer, task) == list(owners == task)


def test_the_shared_stream_trains_all_experts():
    layer = CustomizedGateControl(TASKS, 3, task_experts=2, shared_gate=True)
    assert all(gradients_move(layer, "shared"))


def test_no_two_experts_start_alike():
    layer = CustomizedGateControl(
        TASKS, 3, 2, 2, kernel_initializer=keras.initializers.HeNormal(seed=3)
    )
    layer.build(X.shape)
    kernels = [layer.task_experts.kernels[0], layer.shared_experts.kernels[0]]
    slices = np.concatenate([to_numpy(k) for k in kernels])
    for i in range(len(slices)):
        for j in range(i):
            assert not np.allclose(slices[i], slices[j])


@pytest.mark.parametrize("shared_gate", [False, True])
def test_sharing_summary(shared_gate):
    inputs = keras.Input((5,))
    layer = CustomizedGateControl(TASKS, 3, shared_gate=shared_gate, name="cgc")
    streams = layer(inputs)
    if shared_gate:
        streams = CustomizedGateControl(TASKS, 3, name="last")(streams)
    outputs = {n: keras.layers.Dense(1)(h) for n, h in streams.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["cgc_shared_experts"].kind == "shared"
    # Through the shared stream the experts of a task serve all.
    kind = "shared" if shared_gate else "stacked"
    assert rows["cgc_task_experts"].kind == kind
    if shared_gate:
        assert rows["last_task_experts"].kind == "stacked"


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"task_names": ["a", "shared"]}, "No task can be called 'shared'"),
        ({"units": 0}, "`units` must be a whole number"),
        ({"units": ()}, "Dense experts need `units`"),
        ({"task_experts": 0}, "`task_experts` must be a whole number of at least 1"),
        ({"shared_experts": 0}, "`shared_experts` must be a whole number of at"),
        ({"gate": 3}, "`gate` must be a gate"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        CustomizedGateControl(**{"task_names": TASKS, "units": 3, **arguments})
    assert "Received: " in str(error.value)


def test_refuses_streams_without_a_shared_one():
    streams = {name: X for name in TASKS}
    with pytest.raises(ValueError, match=r"must be a dict with the keys.*shared"):
        CustomizedGateControl(TASKS, 3)(streams)
