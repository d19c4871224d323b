import functools

import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_layer

import keras_mtl
from keras_mtl.layers import EntireSpace

RNG = np.random.default_rng(0)
EVENTS = ["click", "cart", "buy"]
P = {name: RNG.uniform(size=(10, 1)).astype("float32") for name in EVENTS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("inputs", [P, list(P.values())], ids=["dict", "list"])
def test_layer(inputs):
    check_layer(lambda: EntireSpace(EVENTS), (inputs,), keeps_dtype=True)


def test_layer_with_every_argument():
    make_layer = functools.partial(EntireSpace, EVENTS, ["clicked_cart", "sold"])
    check_layer(make_layer, (P,), keeps_dtype=True)


def test_products_of_the_chain():
    outputs = {n: to_numpy(p) for n, p in EntireSpace(EVENTS)(P).items()}
    assert list(outputs) == [*EVENTS, "click_and_cart", "click_and_cart_and_buy"]
    for name in EVENTS:
        np.testing.assert_array_equal(outputs[name], P[name])
    both = P["click"] * P["cart"]
    np.testing.assert_allclose(outputs["click_and_cart"], both, rtol=1e-6)
    np.testing.assert_allclose(
        outputs["click_and_cart_and_buy"], both * P["buy"], rtol=1e-6
    )


def test_conversion_is_learned_without_its_bias():
    """Of rows that are clicked by a hidden cause of both: all rows tell the truth.

    A network of conversion alone, trained on clicked rows, has their rate; here the
    two rates come out as the data have them.
    """
    generator = np.random.default_rng(0)
    rows = 4000
    x = generator.integers(0, 2, size=(rows, 1)).astype("float32")
    click = generator.uniform(size=(rows, 1)) < np.where(x, 0.8, 0.3)
    buy = click & (generator.uniform(size=(rows, 1)) < np.where(x, 0.2, 0.6))
    inputs = keras.Input((1,))
    p = {
        n: keras.layers.Dense(1, "sigmoid", name=f"p_{n}")(inputs)
        for n in ("click", "buy")
    }
    outputs = EntireSpace(["click", "buy"])(p)
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    losses = dict.fromkeys(["click", "click_and_buy"], "binary_crossentropy")
    model.compile(keras.optimizers.Adam(0.1), loss=losses)
    y = {"click": click, "click_and_buy": buy}
    model.fit(x, y, batch_size=rows, epochs=150, verbose=0)
    found = model.predict(np.array([[0.0], [1.0]]), verbose=0)
    for value in (0, 1):
        there = x[:, 0] == value
        clicked = there & click[:, 0]
        assert found["click"][value, 0] == pytest.approx(click[there].mean(), abs=0.01)
        assert found["buy"][value, 0] == pytest.approx(buy[clicked].mean(), abs=0.02)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"task_names": ["a"]}, "must hold 2 or more names"),
        ({"joint_names": ["x"]}, "`joint_names` must hold a new name for each"),
        ({"joint_names": ["click", "x"]}, "`joint_names` must hold a new name for"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        EntireSpace(**{"task_names": EVENTS, **arguments})
    assert "Received: " in str(error.value)


def test_half_precision_keeps_small_probabilities():
    inputs = {name: np.full((2, 1), 1e-4, "float32") for name in EVENTS}
    outputs = EntireSpace(EVENTS, dtype="mixed_float16")(inputs)
    product = to_numpy(outputs["_and_".join(EVENTS[:2])])
    np.testing.assert_allclose(product, 1e-8, rtol=1e-5)


def test_an_event_and_its_products_have_the_layers_before_to_themselves():
    x = keras.Input((4,))
    h = keras.layers.Dense(3, name="trunk")(x)
    p = {n: keras.layers.Dense(1, "sigmoid", name=n)(h) for n in ("click", "buy")}
    model = keras_mtl.MultiTaskModel(x, EntireSpace(["click", "buy"])(p))
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert set(rows["click"].tasks) == {"click", "click_and_buy"}
    assert set(rows["buy"].tasks) == {"buy", "click_and_buy"}
    assert len(rows["trunk"].tasks) == 3


@pytest.mark.parametrize(
    "inputs, match",
    [
        (np.full((3, 1), 0.5), "with one tensor for each task"),
        ({"click": np.ones((3, 1)), "cart": np.ones((3,)), "buy": np.ones((3, 1))}, ""),
    ],
)
def test_refuses_inputs_that_would_be_multiplied_wrongly(inputs, match):
    events = ["click", "cart", "buy"]
    with pytest.raises(ValueError, match=match or "must have one shape"):
        EntireSpace(events)(inputs)
