import keras
import numpy as np
import pytest
from keras import ops

import keras_mtl
from keras_mtl import models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
IMAGES = RNG.normal(size=(8, 8, 8, 3)).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def heads():
    return {
        "a": keras.layers.Dense(1),
        "b": [keras.layers.Dense(4, "relu"), keras.layers.Dense(2)],
    }


def trunk():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu", name="lower"),
            keras.layers.Dense(5, "relu", name="upper"),
        ]
    )


def branched_trunk():
    """A graph with a branch, a layer that is called twice and an operation."""
    inputs = keras.Input((6,))
    twice = keras.layers.Dense(6, "tanh", name="twice")
    h = twice(twice(inputs))
    h = keras.layers.Add(name="sum")([h, inputs]) * 2.0
    h = keras.layers.BatchNormalization(name="norm")(h)
    return keras.Model(inputs, keras.layers.Dropout(0.2, name="drop")(h))


def convolutions():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="u1"),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="p1"),
            keras.layers.MaxPooling2D(name="u2"),
            keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="p2"),
        ]
    )


def image_heads():
    return {
        name: [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
        for name in "ab"
    }


BUILDERS = {
    "hard_sharing": lambda: models.hard_sharing(trunk(), heads()),
    "mixture_of_experts": lambda: models.mixture_of_experts(
        trunk(), heads(), experts=3, units=(6, 4)
    ),
    "experts that are layers": lambda: models.mixture_of_experts(
        trunk(), heads(), [keras.layers.Dense(3), keras.layers.Dense(3)], None
    ),
    "progressive_layered_extraction": lambda: models.progressive_layered_extraction(
        trunk(), heads(), units=[6, 4], task_experts=2
    ),
    "cross_stitch": lambda: models.cross_stitch(trunk(), heads(), at=["lower"]),
    "cross_stitch of a graph": lambda: models.cross_stitch(
        branched_trunk(), heads(), at=["sum", "norm"]
    ),
    "task_attention": lambda: models.task_attention(
        trunk(), heads(), [("lower", "lower"), ("upper", "upper")]
    ),
    "hard_sharing of an input": lambda: models.hard_sharing(keras.Input((6,)), heads()),
}


BY_DEFAULT = ("mixture_of_experts", "cross_stitch of a graph")


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(
            build, id=name, marks=() if name in BY_DEFAULT else pytest.mark.slow
        )
        for name, build in BUILDERS.items()
    ],
)
def test_trains_saves_and_loads(build, tmp_path):
    model = build()
    assert isinstance(model, keras_mtl.MultiTaskModel)
    assert model.task_names == ["a", "b"]
    model.compile(keras.optimizers.Adam(0.01), loss="mse", weighting="uncertainty")
    y = {"a": X[:, :1], "b": X[:, :2]}
    losses = model.fit(X, y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(X, verbose=0)
    for name, found in loaded.predict(X, verbose=0).items():
        np.testing.assert_allclose(found, expected[name], atol=1e-5)


def test_hard_sharing_is_the_heads_on_the_trunk():
    base, tops = trunk(), heads()
    model = models.hard_sharing(base, tops, name="shared")
    assert model.name == "shared"
    outputs = model(X)
    h = base(X)
    expected = to_numpy(tops["a"](h))
    np.testing.assert_allclose(to_numpy(outputs["a"]), expected, atol=1e-6)
    first, second = tops["b"]
    np.testing.assert_allclose(
        to_numpy(outputs["b"]), to_numpy(second(first(h))), atol=1e-6
    )


def test_a_head_can_be_a_function():
    model = models.hard_sharing(
        trunk(), {"a": lambda h: keras.layers.Dense(1)(h) * 2.0}
    )
    assert model(X)["a"].shape == (16, 1)


def test_several_inputs():
    one, other = keras.Input((3,), name="one"), keras.Input((3,), name="other")
    features = keras.layers.Concatenate()([one, other])
    base = keras.Model({"one": one, "other": other}, features)
    model = models.hard_sharing(base, heads())
    outputs = model({"one": X[:, :3], "other": X[:, 3:]})
    assert outputs["b"].shape == (16, 2)
    without_model = models.hard_sharing(features, heads())
    assert len(without_model.inputs) == 2


@pytest.mark.parametrize("make", [trunk, branched_trunk])
def test_networks_of_a_cross_stitch_start_as_the_trunk(make):
    """With the identity between, each task has what the trunk makes."""
    base = make()
    base.set_weights([RNG.uniform(0.2, 1, w.shape) for w in base.get_weights()])
    at = ["lower", "upper"] if make is trunk else ["sum", "drop"]
    tops = {name: keras.layers.Identity() for name in "abc"}
    model = models.cross_stitch(base, tops, at=at, own=1.0)
    expected = to_numpy(base(X))
    for y in model(X).values():
        np.testing.assert_allclose(to_numpy(y), expected, atol=1e-5)
    # The copies are copies: the trunk is not trained with them.
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = [w.copy() for w in base.get_weights()]
    model.train_on_batch(X, dict.fromkeys("abc", np.zeros(expected.shape)))
    for old, new in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_networks_of_a_cross_stitch_with_weights_of_their_own():
    model = models.cross_stitch(trunk(), heads(), copy_weights=False)
    kernels = [to_numpy(model.get_layer(f"lower_{name}").kernel) for name in ("a", "b")]
    assert not np.allclose(*kernels)
    stitches = [layer.name for layer in model.layers if layer.name.startswith("stitch")]
    assert stitches == ["stitch_upper"]


@pytest.mark.slow
def test_task_attention_on_images():
    model = models.task_attention(
        convolutions(), image_heads(), [("u1", "p1"), ("u2", "p2")], units=4
    )
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    y = {"a": np.ones(8), "b": np.zeros(8)}
    losses = model.fit(IMAGES, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_backbone_of_keras_applications():
    backbone = keras.applications.MobileNetV3Small(
        (32, 32, 3),
        alpha=0.35,
        minimalistic=True,
        include_top=False,
        weights=None,
        pooling="avg",
        include_preprocessing=False,
    )
    model = models.mixture_of_experts(backbone, heads(), experts=2, units=8)
    outputs = model(RNG.normal(size=(2, 32, 32, 3)))
    assert outputs["b"].shape == (2, 2)


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: models.hard_sharing("trunk", heads()), "`trunk` must be a functional"),
        (
            lambda: models.hard_sharing(keras.Sequential(), heads()),
            "`trunk` must be a functional",
        ),
        (lambda: models.hard_sharing(trunk(), {}), "`heads` must be a dict by task"),
        (lambda: models.hard_sharing(trunk(), [1]), "`heads` must be a dict by task"),
        (lambda: models.hard_sharing(trunk(), {"a": 1}), "A head must be a layer"),
        (
            lambda: models.task_attention(trunk(), heads(), []),
            "`blocks` must be a list of pairs",
        ),
        (
            lambda: models.task_attention(trunk(), heads(), [("lower", "top")]),
            "The trunk has no layer of this name",
        ),
        (
            lambda: models.cross_stitch(trunk(), heads(), at=["top"]),
            "The trunk has no layer of this name",
        ),
        (
            lambda: models.cross_stitch(keras.Input((6,)), heads()),
            "`trunk` must be a functional",
        ),
    ],
)
def test_refuses(build, match):
    with pytest.raises(ValueError, match=match) as error:
        build()
    assert "Received: " in str(error.value)


def test_refuses_a_layer_in_two_heads():
    head = keras.layers.Dense(1)
    with pytest.raises(ValueError, match=r"in one head alone.*Received"):
        models.hard_sharing(trunk(), {"a": head, "b": head})


def test_refuses_a_trunk_with_several_outputs():
    inputs = keras.Input((6,))
    two = keras.Model(inputs, [inputs * 1.0, inputs * 2.0])
    with pytest.raises(ValueError, match=r"must have one output. Received"):
        models.hard_sharing(two, heads())


def test_heads_of_all_tasks_in_one_layer():
    for build in (
        models.hard_sharing,
        models.mixture_of_experts,
        models.progressive_layered_extraction,
    ):
        heads = keras_mtl.layers.MultiHead(1, ["b", "a"], hidden_units=(4,))
        model = build(keras.Input((5,)), heads)
        assert sorted(model.output) == ["a", "b"]
        model.compile("adam", loss="mse")
        y = {"a": np.ones((4, 1)), "b": np.ones((4, 1))}
        model.fit(np.ones((4, 5)), y, verbose=0)


def test_one_function_for_all_heads():
    heads = dict.fromkeys("ab", lambda h: keras.layers.Dense(1)(h))
    model = models.hard_sharing(keras.Input((5,)), heads)
    assert len(model.trainable_variables) == 4


def test_layers_as_experts_need_no_units():
    experts = [keras.layers.Dense(3), keras.layers.Dense(3)]
    heads = {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)}
    model = models.mixture_of_experts(keras.Input((5,)), heads, experts=experts)
    assert model.output["a"].shape == (None, 1)


def test_a_cross_stitch_of_a_trunk_that_ends_in_an_operation():
    x = keras.Input((5,))
    trunk = keras.Model(x, keras.layers.Dense(3)(x) * 2.0)
    model = models.cross_stitch(
        trunk, {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)}
    )
    assert any(
        isinstance(layer, keras_mtl.layers.CrossStitch) for layer in model.layers
    )


def test_a_layer_that_the_trunk_calls_twice():
    """The last call is stitched by default; by name it is not known which is meant."""
    x = keras.Input((3,))
    twice = keras.layers.Dense(3, name="twice")
    trunk = keras.Model(x, twice(twice(x)))
    heads = {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)}
    model = models.cross_stitch(trunk, heads)
    stitches = [
        layer
        for layer in model.layers
        if isinstance(layer, keras_mtl.layers.CrossStitch)
    ]
    assert len(stitches) == 1
    with pytest.raises(ValueError, match="calls this layer more than once"):
        models.cross_stitch(trunk, heads, at=["twice"])
    with pytest.raises(ValueError, match="calls this layer more than once"):
        models.task_attention(trunk, heads, blocks=[("twice", "twice")])


def test_a_layer_that_was_called_before_the_trunk_was_made():
    dense = keras.layers.Dense(3, name="dense")
    dense(keras.Input((3,)))
    x = keras.Input((3,))
    trunk = keras.Model(x, dense(x))
    heads = {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)}
    model = models.task_attention(trunk, heads, blocks=[("dense", "dense")])
    assert model.output["a"].shape == (None, 1)


def test_copies_of_a_seeded_trunk_with_weights_of_their_own():
    initializer = keras.initializers.GlorotUniform(seed=1)
    trunk = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3, kernel_initializer=initializer)]
    )
    heads = {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)}
    model = models.cross_stitch(trunk, heads, copy_weights=False)
    name = trunk.layers[0].name
    one, other = (model.get_layer(f"{name}_{t}").get_weights()[0] for t in "ab")
    assert np.abs(one - other).min() > 1e-6
