import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_batch_sizes,
    check_config,
    check_dtype_policies,
    check_layer,
    check_mask,
    check_saving,
    check_shapes_and_dtypes,
    check_training,
)

import keras_mtl
from keras_mtl.layers import TaskAttention

RNG = np.random.default_rng(0)
TASKS = ["b", "a"]
ROWS = [RNG.normal(size=(10, n)).astype("float32") for n in (5, 3)]
IMAGES = [RNG.normal(size=(10, 4, 6, n)).astype("float32") for n in (5, 3)]
STEPS = [RNG.normal(size=(10, 4, n)).astype("float32") for n in (5, 3)]
BEFORE = {
    2: {n: RNG.normal(size=(10, 4)).astype("float32") for n in TASKS},
    3: {n: RNG.normal(size=(10, 8, 4)).astype("float32") for n in TASKS},
    4: {n: RNG.normal(size=(10, 8, 12, 4)).astype("float32") for n in TASKS},
}


def to_numpy(x):
    return ops.convert_to_numpy(x)


def norm(h):
    """Batch normalisation as it starts, at inference."""
    return h / np.sqrt(1 + 1e-3)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("features", [ROWS, STEPS, IMAGES, ROWS[0]])
def test_layer(features):
    # One tensor is both the first and the last features.
    check_layer(lambda: TaskAttention(TASKS, units=4), (features,))


@pytest.mark.parametrize("features", [ROWS, STEPS, IMAGES])
def test_layer_with_the_block_before(features):
    inputs = (features, BEFORE[features[0].ndim])

    def make():
        return TaskAttention(
            TASKS, kernel_initializer="he_normal", kernel_regularizer="l2"
        )

    for check in (
        check_shapes_and_dtypes,
        check_config,
        check_saving,
        check_dtype_policies,
        check_batch_sizes,
        check_training,
    ):
        check(make, inputs)


def test_mask():
    u, p = (x.copy() for x in STEPS)
    u[2:5, 1:] = p[2:5, 1:] = 0
    check_mask(lambda: TaskAttention(TASKS), (p,))


@pytest.mark.parametrize("features", [ROWS, STEPS, IMAGES])
def test_is_what_its_formula_says(features):
    layer = TaskAttention(TASKS, units=4)
    outputs = layer(features)
    u, p = features
    first, second = to_numpy(layer.first.kernels[0]), to_numpy(layer.second.kernels[0])
    for t, name in enumerate(TASKS):
        h = np.maximum(norm(u @ first[t]), 0)
        expected = sigmoid(norm(h @ second[t])) * p
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)


def test_reads_what_the_block_before_made():
    layer = TaskAttention(TASKS, units=4)
    outputs = layer(ROWS, previous=BEFORE[2])
    u, p = ROWS
    first, second = to_numpy(layer.first.kernels[0]), to_numpy(layer.second.kernels[0])
    kernel = to_numpy(layer.transition[0].kernel)
    for t, name in enumerate(TASKS):
        moved = np.maximum(BEFORE[2][name] @ kernel, 0)
        h = np.maximum(norm(np.concatenate([u, moved], axis=-1) @ first[t]), 0)
        expected = sigmoid(norm(h @ second[t])) * p
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)


def test_masks_are_between_0_and_1():
    _, p = IMAGES
    for y in TaskAttention(TASKS)(IMAGES).values():
        ratio = to_numpy(y) / p
        assert (ratio > 0).all() and (ratio < 1).all()


def test_two_blocks_in_a_model():
    image = keras.Input((8, 8, 3))
    u = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="u")(image)
    p = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(u)
    first = TaskAttention(TASKS, name="first")([u, p])
    u = keras.layers.MaxPooling2D()(p)
    p = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(u)
    second = TaskAttention(TASKS, name="second")([u, p], previous=first)
    outputs = {
        n: keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(h))
        for n, h in second.items()
    }
    model = keras_mtl.MultiTaskModel(image, outputs)
    model.compile("adam", "mse", aggregator="pcgrad")
    x = RNG.normal(size=(8, 8, 8, 3))
    y = {n: np.ones(8) for n in TASKS}
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["u"].kind == "shared"
    assert rows["second_first"].kind == "stacked"
    assert rows["second_transition"].kind == "shared"


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda t: t({"a": ROWS[0]}), "a list of the first and the last features"),
        (lambda t: t([*ROWS, ROWS[0]]), "a list of the first and the last features"),
        (lambda t: t([ROWS[0], IMAGES[0]]), "must have the same axes"),
        (lambda t: t(ROWS, previous=ROWS[0]), "`previous` must be a dict"),
        (lambda t: t(ROWS, previous={"a": ROWS[0]}), "`previous` must be a dict"),
        (
            lambda t: t(IMAGES, previous={n: x[:, :7] for n, x in BEFORE[4].items()}),
            "a whole multiple of",
        ),
    ],
)
def test_refuses(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call(TaskAttention(TASKS))
    assert "Received: " in str(error.value)


def test_images_of_unknown_size_need_the_pool_size():
    u, p = keras.Input((None, None, 3)), keras.Input((None, None, 3))
    before = {name: keras.Input((None, None, 2)) for name in ("a", "b")}
    with pytest.raises(ValueError, match="`pool_size`, which must be given"):
        TaskAttention(["a", "b"])([u, p], previous=before)
    outputs = TaskAttention(["a", "b"], pool_size=2)([u, p], previous=before)
    model = keras.Model([u, p, *before.values()], outputs)
    sizes = (4, 4, 3), (4, 4, 3), (8, 8, 2), (8, 8, 2)
    made = model([np.ones((2, *size), "float32") for size in sizes])
    assert made["a"].shape == (2, 4, 4, 3)
