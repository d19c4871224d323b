import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, check_mask, slow_to_compile

import keras_mtl
from keras_mtl.layers import SoftmaxGate, STEMGate

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
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
    check_layer(lambda: STEMGate(TASKS, (4, 3), 2, 2), (inputs,))


def test_layer_with_every_argument():
    def make():
        return STEMGate(
            ("a", "b"),
            units=4,
            task_experts=2,
            shared_experts=2,
            activation="tanh",
            use_bias=False,
            gate=SoftmaxGate(),
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
        )

    check_layer(make, (X,))


def test_mask():
    steps = RNG.normal(size=(10, 4, 5))
    steps[2:5, 1:] = 0
    check_mask(lambda: STEMGate(TASKS, 3), (steps,))


@slow_to_compile
def test_jit():
    check_jit(lambda: STEMGate(TASKS, 3), (X,))


@pytest.mark.parametrize("m", [1, 2])
def test_every_task_sees_all_experts(m):
    layer = STEMGate(TASKS, 3, m, 2, bias_initializer="normal")
    outputs = layer(STREAMS)
    kernel, bias = (
        to_numpy(v[0]) for v in (layer.task_experts.kernels, layer.task_experts.biases)
    )
    seen = [
        np.maximum(STREAMS[TASKS[s // m]] @ kernel[s] + bias[s], 0)
        for s in range(len(kernel))
    ]
    kernel, bias = (
        to_numpy(v[0])
        for v in (layer.shared_experts.kernels, layer.shared_experts.biases)
    )
    seen += [
        np.maximum(STREAMS["shared"] @ k + b, 0)
        for k, b in zip(kernel, bias, strict=True)
    ]
    for t, name in enumerate(TASKS):
        read = STREAMS[name] + STREAMS["shared"]
        weights = to_numpy(layer.gate(read))[:, t]
        expected = sum(weights[:, e, None] * y for e, y in enumerate(seen))
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_its_own_experts_and_embedding_alone(task):
    index = keras.Input((), dtype="int32")
    embeddings = {n: keras.layers.Embedding(10, 5, name=f"of_{n}") for n in STREAMS}
    layer = STEMGate(TASKS, 3, task_experts=2)
    h = layer({n: embedding(index) for n, embedding in embeddings.items()})
    model = keras.Model(index, h[task])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = {n: to_numpy(e.embeddings).copy() for n, e in embeddings.items()}
    kernel = to_numpy(layer.task_experts.kernels[0]).copy()
    model.train_on_batch(np.arange(10), np.ones((10, 3)))
    moved = {
        n for n, e in embeddings.items() if (to_numpy(e.embeddings) != before[n]).any()
    }
    assert moved == {task, "shared"}
    slices = (to_numpy(layer.task_experts.kernels[0]) != kernel).any(axis=(1, 2))
    assert list(slices) == list(np.repeat(TASKS, 2) == task)


def test_sharing_summary():
    inputs = {n: keras.Input((5,), name=n) for n in STREAMS}
    layer = STEMGate(TASKS, 3, name="stem")
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["stem_task_experts"].kind == "stacked"
    assert rows["stem_shared_experts"].kind == "shared"


def test_refuses_a_task_called_shared():
    with pytest.raises(ValueError, match=r"No task can be called 'shared'.*Received"):
        STEMGate(["a", "shared"], 3)


def test_a_stream_is_private_to_its_task():
    item = keras.Input((), dtype="int32")
    names = ("click", "like", "shared")
    streams = {n: keras.layers.Embedding(9, 4, name=f"emb_{n}")(item) for n in names}
    h = STEMGate(["click", "like"], units=3)(streams)
    outputs = {n: keras.layers.Dense(1)(x) for n, x in h.items()}
    model = keras_mtl.MultiTaskModel(item, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["emb_click"].tasks == ("click",)
    assert rows["emb_like"].tasks == ("like",)
    assert rows["emb_shared"].kind == "shared"
