"""How much a step for one task helps another."""

import keras
import numpy as np
import pytest
from probed_models import (
    NAMES,
    ROWS,
    as_float64,
    data,
    gradients_by_hand,
    linear,
    losses_by_hand,
    two_layers,
)

from keras_mtl import MultiTaskModel
from keras_mtl.analysis import TaskAffinity


def measured(model, names, labels=None, **arguments):
    x, y = data(names=names)
    arguments = {"every": 1, "look_ahead_every": 1, "fraction": 1.0, **arguments}
    affinity = TaskAffinity(**arguments)
    model.fit(x, labels or y, batch_size=ROWS, verbose=0, callbacks=[affinity])
    return affinity


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_closed_form(scale):
    """Both forms of a linear model, against losses after a step by hand.

    The losses of both tasks are times a factor, which the size of the step undoes.
    """

    def loss(y_true, y_pred):
        return scale * keras.ops.mean((y_true - y_pred) ** 2, axis=-1)

    names = ["a", "b"]
    model = linear()
    model.compile(keras.optimizers.SGD(0.05), loss={n: loss for n in names})
    x, y = data(names=names)
    trunk, heads, x, y = as_float64(model, x, y)
    before = losses_by_hand(trunk, heads, x, y)
    gradients = gradients_by_hand(trunk, heads, x, y)
    after = np.stack([losses_by_hand(trunk - 0.05 * g, heads, x, y) for g in gradients])
    flat = gradients.reshape(2, -1)
    found = measured(model, names, step_size=0.05 / scale).total
    np.testing.assert_allclose(found.look_ahead, 1 - after / before, atol=1e-5)
    np.testing.assert_allclose(
        found.first_order, 0.05 * flat @ flat.T / before, rtol=1e-4
    )
    assert (found.steps == 1).all()


def test_the_step_is_the_learning_rate_of_the_optimizer():
    """Also that of a schedule."""
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([10], [0.02, 0.2])
    found = []
    for arguments, rate in (({}, decay), ({"step_size": 0.02}, 0.5)):
        keras.utils.set_random_seed(0)
        model = linear()
        model.compile(keras.optimizers.SGD(rate), loss="mse")
        found.append(measured(model, ["a", "b"], **arguments).matrix)
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_a_small_step_is_the_first_order():
    model = two_layers()
    model.compile("sgd", loss="mse")
    found = measured(model, NAMES, step_size=1e-3).total
    np.testing.assert_allclose(found.look_ahead, found.first_order, atol=2e-4)
    assert (np.diag(found.look_ahead) > 0).all()


def test_weights_do_not_matter():
    """Affinities are of the losses themselves."""
    found = []
    for weights in (None, {"a": 100.0, "b": 0.01}):
        keras.utils.set_random_seed(0)
        model = two_layers()
        model.compile("sgd", loss="mse", loss_weights=weights)
        found.append(measured(model, NAMES, step_size=0.01).matrix)
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-7)


def test_help_is_positive_also_where_losses_are_negative():
    def below_zero(y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2, axis=-1) - 1e3

    model = two_layers()
    model.compile("sgd", loss={n: below_zero for n in NAMES})
    found = measured(model, NAMES, step_size=0.1).total
    assert (np.diag(found.first_order) > 0).all()
    assert (np.diag(found.look_ahead) > 0).all()


def test_the_same_dropout_masks():
    """Else a task would seem to gain or lose by chance, whatever the step."""
    extra = [keras.layers.Dropout(0.5), keras.layers.BatchNormalization()]
    model = two_layers(extra=extra)
    model.compile("sgd", loss="mse")
    found = measured(model, NAMES, step_size=1e-12).total
    np.testing.assert_allclose(found.look_ahead, 0, atol=1e-6)


@pytest.mark.parametrize("once", [True, False])
def test_the_same_dropout_masks_in_heads(once):
    """Whose layers a model runs in another order than the stages of a step."""
    inputs = keras.Input((4,))
    h = keras.layers.Dense(6, name="trunk")(inputs)
    shared = keras.layers.Dropout(0.5)
    heads = {}
    for name in NAMES:
        own = keras.layers.Dense(8)(h)
        own = (shared if once else keras.layers.Dropout(0.5))(own)
        own = keras.layers.Dense(4)(shared(own) if once else own)
        heads[name] = keras.layers.Dense(1)(own)
    model = MultiTaskModel(inputs, heads)
    model.compile("sgd", loss="mse")
    found = measured(model, NAMES, step_size=1e-12).total
    np.testing.assert_allclose(found.look_ahead, 0, atol=1e-6)


def test_no_loss_and_no_label_do_not_count():
    model = linear()
    model.get_layer("a").set_weights([np.zeros((2, 1))])
    model.compile("sgd", loss="mse")
    _, y = data(names=["a", "b"])
    labels = {"a": np.zeros_like(y["a"]), "b": y["b"]}
    steps = measured(model, ["a", "b"], labels).total.steps
    assert steps.tolist() == [[0, 1], [0, 1]]
    labels = {"a": y["a"], "b": np.full_like(y["b"], np.nan)}
    found = measured(model, ["a", "b"], labels).total
    assert found.steps.tolist() == [[1, 0], [0, 0]]
    assert np.isnan(found.look_ahead[0, 1])


def test_groups_of_planted_tasks():
    """Two pairs of tasks, each with labels of the same sign within and not across."""
    names = ["p", "q", "r", "s"]
    x, y = data(names=["a"])
    labels = {"p": y["a"], "q": 2 * y["a"], "r": -y["a"], "s": -3 * y["a"]}
    inputs = keras.Input((4,))
    h = keras.layers.Dense(1, use_bias=False)(inputs)
    head = keras.layers.Activation("linear")
    model = MultiTaskModel(inputs, {n: head(h) for n in names})
    model.compile("sgd", loss="mse")
    affinity = TaskAffinity(every=1, step_size=1e-3)
    model.fit(x, labels, batch_size=8, verbose=0, callbacks=[affinity])
    assert affinity.groups(2) == [["p", "q"], ["r", "s"]]
    frame = affinity.to_frame()
    assert len(frame) == 16
    one = frame[(frame.task == "p") & (frame.other == "s")].iloc[0]
    assert one.look_ahead == affinity.history[0].look_ahead[0, 3]


def test_without_look_ahead():
    model = two_layers()
    model.compile("sgd", loss="mse")
    keras.utils.set_random_seed(0)
    affinity = measured(model, NAMES, step_size=0.01, look_ahead=False)
    assert np.isnan(affinity.total.look_ahead).all()
    assert (affinity.total.look_aheads == 0).all()
    np.testing.assert_array_equal(affinity.matrix, affinity.total.first_order)


@pytest.mark.parametrize(("every", "look_aheads"), [(None, 2), (4, 2), (3, 2), (9, 1)])
def test_one_of_some_measurements_looks_ahead(every, look_aheads):
    """Of 5 measurements of 3 tasks; the first among them, which is as if all did."""
    x, y = data()
    found = []
    for look_ahead_every in (1, every):
        keras.utils.set_random_seed(0)
        model = two_layers()
        model.compile(keras.optimizers.SGD(0.0), loss="mse")
        affinity = TaskAffinity(2, 0.01, True, 1.0, look_ahead_every)
        model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[affinity])
        found.append(affinity)
    each, some = (affinity.total for affinity in found)
    assert (each.look_aheads == 5).all()
    assert (some.look_aheads == look_aheads).all()
    assert (some.steps == 5).all()
    np.testing.assert_allclose(some.first_order, each.first_order, rtol=1e-5)
    assert np.isfinite(some.look_ahead).all()
    frame = found[1].to_frame()
    assert frame.look_aheads.sum() == 9 * look_aheads
    assert frame.look_ahead.isna().equals(frame.look_aheads == 0)


def test_errors():
    with pytest.raises(ValueError, match=r"`step_size`.*Received: step_size=0"):
        TaskAffinity(step_size=0)
    with pytest.raises(ValueError, match=r"`look_ahead_every`.*Received: .*0"):
        TaskAffinity(look_ahead_every=0)
    with pytest.raises(ValueError, match="first epoch"):
        _ = TaskAffinity().matrix
