"""`compile` may be called again, and what it was given may change while training."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import (
    IN_A_GRAPH,
    LOSSES,
    Scaled,
    TwoHeads,
    assert_close,
    compiled,
    copy_weights,
    data,
    layer_weights,
    two_tasks,
)
from weightings_for_tests import GradientNorms, InverseMean, LogVariance

from keras_mtl import weighting as weightings

FORMS = [two_tasks, TwoHeads, Scaled]


def variables_of_layers(model):
    return {id(v) for layer in model.layers for v in layer.variables}


def other_variables(model):
    """Variables that belong to the weighting, by path."""
    own = variables_of_layers(model)
    return sorted(v.path for v in model.variables if id(v) not in own)


def own_layers(model):
    """Layers of the network, without what holds the weighting."""
    return [layer for layer in model.layers if layer.name != "task_objective"]


@pytest.mark.parametrize("form", FORMS)
def test_variables_of_the_old_weighting_are_gone(form):
    model = form()
    x, y = data(16)
    compiled(model, weighting=LogVariance())
    model.fit(x, y, verbose=0)
    network = sum(len(layer.variables) for layer in own_layers(model))
    old = model.weighting.log_variance
    assert any(v is old for v in model.trainable_variables)
    assert len(model.variables) == network + 2
    for _ in range(2):
        compiled(model, weighting=InverseMean())
        assert len(model.variables) == network + 2
        for variables in (
            model.variables,
            model.trainable_variables,
            model.weights,
            model.optimizer.variables,
        ):
            assert all(v is not old for v in variables)
        assert any(v is model.weighting.average for v in model.variables)
        before = ops.convert_to_numpy(model.weighting.average).copy()
        model.fit(x, y, verbose=0)
        after = ops.convert_to_numpy(model.weighting.average)
        assert (before != after).all()
    compiled(model)
    assert len(model.variables) == network + 1


@pytest.mark.parametrize(
    ("form", "first"),
    [(two_tasks, "grad_norm"), (TwoHeads, "famo"), (Scaled, "dwa")],
)
def test_a_recompiled_model_trains_as_a_new_one(form, first):
    x, y = data(16)
    one, other = form(), form()
    for model in (one, other):
        model(x)
    compiled(one, weighting=first)
    one.fit(x, y, verbose=0)
    for layer, twin in zip(own_layers(other), own_layers(one), strict=True):
        twin.set_weights(layer.get_weights())
    histories = []
    for model in (one, other):
        compiled(model, weighting="uncertainty")
        histories.append(model.fit(x, y, epochs=3, shuffle=False, verbose=0).history)
    assert_close(*histories)
    assert_close(
        [ops.convert_to_numpy(v) for v in one.trainable_variables],
        [ops.convert_to_numpy(v) for v in other.trainable_variables],
    )


def test_recompiling_in_a_graph():
    """The step that was traced for the old weighting is not used again."""
    x, y = data(16)
    model = compiled(weighting=InverseMean(), **IN_A_GRAPH)
    model.fit(x, y, verbose=0)
    compiled(model, weighting=LogVariance(), **IN_A_GRAPH)
    before = ops.convert_to_numpy(model.weighting.log_variance).copy()
    model.fit(x, y, verbose=0)
    after = ops.convert_to_numpy(model.weighting.log_variance)
    assert (before != after).all()
    compiled(model, weighting=GradientNorms(), **IN_A_GRAPH)
    model.fit(x, y, verbose=0)
    assert (ops.convert_to_numpy(model.weighting.norms) != 1).all()


def test_recompiling_with_fewer_and_other_tasks():
    x, y = data(16)
    model = compiled(weighting=InverseMean())
    model.fit(x, y, verbose=0)
    compiled(model, loss={"b": LOSSES["b"]}, weighting=InverseMean())
    assert model.task_names == ["b"]
    assert tuple(model.weighting.average.shape) == (1,)
    history = model.fit(x, {"b": y["b"]}, verbose=0).history
    assert sorted(history) == ["b_loss", "b_weight", "loss"]
    assert model.metrics_names == ["loss", "b_loss"]
    compiled(model, loss={"a": "mae"})
    history = model.fit(x, {"a": y["a"]}, verbose=0).history
    assert sorted(history) == ["a_loss", "a_weight", "loss"]


def test_a_weighting_built_for_other_tasks_is_refused():
    weighting = InverseMean()
    compiled(weighting=weighting)
    with pytest.raises(ValueError, match=r"built for 2 tasks.*Received"):
        compiled(loss={"a": "mse"}, weighting=weighting)


def test_a_failed_compile_leaves_the_model_as_it_was():
    model = compiled(weighting=InverseMean())
    weighting = model.weighting
    for wrong in (
        {"weighting": "no_such_weighting"},
        {"loss": {"c": "mse"}},
        {"loss": None},
        {"loss_weights": {"a": -1.0}},
        {"mask_value": {"c": 0}},
        {"metrics": {"c": "mae"}},
    ):
        with pytest.raises(ValueError, match="Received"):
            compiled(model, **wrong)
    assert model.weighting is weighting
    x, y = data(16)
    model.fit(x, y, verbose=0)


def test_a_weighting_may_move_on_to_another_model():
    """Its state goes with it."""
    x, y = data(16)
    weighting = LogVariance()
    compiled(weighting=weighting).fit(x, y, verbose=0)
    moved = ops.convert_to_numpy(weighting.log_variance).copy()
    model = compiled(weighting=weighting)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.weighting.log_variance), moved
    )
    model.fit(x, y, verbose=0)
    assert (ops.convert_to_numpy(model.weighting.log_variance) != moved).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", weightings.names())
def test_every_weighting_after_every_other(name):
    x, y = data(16)
    model = compiled(weighting=LogVariance())
    model.fit(x, y, verbose=0)
    compiled(model, weighting=name)
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())


# Loss weights


class OnEpoch(keras.callbacks.Callback):
    """Task "b" alone is trained from the second epoch on."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.set_loss_weights({"a": 0.0})


class OnBatch(keras.callbacks.Callback):
    """Task "a" is trained with the first batch of an epoch alone."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.set_loss_weights({"a": float(batch == 0)})


def test_loss_weights_changed_at_an_epoch_take_effect():
    x, y = data(32)
    one, other = two_tasks(), two_tasks()
    copy_weights(one, other)
    kwargs = {"batch_size": 16, "shuffle": False, "verbose": 0}
    compiled(one, weighting=InverseMean(), **IN_A_GRAPH)
    history = one.fit(x, y, epochs=2, callbacks=[OnEpoch()], **kwargs).history
    assert history["a_weight"][0] > 0 == history["a_weight"][1]
    compiled(other, weighting=InverseMean())
    other.fit(x, y, **kwargs)
    head = [w.copy() for w in other.get_layer("head_a").get_weights()]
    state = ops.convert_to_numpy(other.weighting.average).copy()
    compiled(other, weighting=InverseMean(), loss_weights={"a": 0.0})
    other.weighting.average.assign(state)
    other.fit(x, y, **kwargs)
    assert_close(layer_weights(one), layer_weights(other))
    assert_close(head, one.get_layer("head_a").get_weights())


def test_loss_weights_changed_at_a_batch_take_effect():
    x, y = data(32)
    one, other = two_tasks(), two_tasks()
    copy_weights(one, other)
    compiled(one, **IN_A_GRAPH)
    one.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[OnBatch()])
    compiled(other)
    other.train_on_batch(x[:16], {task: labels[:16] for task, labels in y.items()})
    other.set_loss_weights({"a": 0.0})
    other.train_on_batch(x[16:], {task: labels[16:] for task, labels in y.items()})
    assert_close(layer_weights(one), layer_weights(other))


def test_loss_weights_are_checked():
    model = two_tasks()
    with pytest.raises(ValueError, match="compiled"):
        model.set_loss_weights({"a": 1.0})
    compiled(model, loss_weights={"a": 3})
    assert model.loss_weights == {"a": 3.0, "b": 1.0}
    model.set_loss_weights({"b": 0.5})
    assert model.loss_weights == {"a": 3.0, "b": 0.5}
    for wrong in ({"c": 1.0}, {"a": -1.0}, {"a": np.nan}, {"a": [1.0, 2.0]}, 3.0):
        with pytest.raises(ValueError, match=r"loss_weights.*Received"):
            model.set_loss_weights(wrong)
    assert model.loss_weights == {"a": 3.0, "b": 0.5}


# Class weights


def test_class_weights_may_change_between_fits():
    """They are constants of the traced step, which must be traced anew."""
    x, y = data(16)
    kwargs = {"batch_size": 16, "verbose": 0}
    model = compiled(optimizer=keras.optimizers.SGD(0.0), **IN_A_GRAPH)
    plain = model.fit(x, y, **kwargs).history["b_loss"][0]
    table = {"b": {0: 2.0, 1: 2.0}}
    double = model.fit(x, y, class_weight=table, **kwargs).history["b_loss"][0]
    table["b"].update({0: 3.0, 1: 3.0})
    triple = model.fit(x, y, class_weight=table, **kwargs).history["b_loss"][0]
    again = model.fit(x, y, **kwargs).history["b_loss"][0]
    np.testing.assert_allclose([double, triple, again], plain * np.array([2, 3, 1]))


def test_class_weights_of_a_batch_are_for_that_batch():
    x, y = data(16)
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    plain = model.train_on_batch(x, y, return_dict=True)["b_loss"]
    model.reset_metrics()
    table = {"b": {0: 2.0, 1: 2.0}}
    double = model.train_on_batch(x, y, class_weight=table, return_dict=True)
    np.testing.assert_allclose(double["b_loss"], 2 * plain, rtol=1e-6)
    model.reset_metrics()
    again = model.train_on_batch(x, y, return_dict=True)["b_loss"]
    np.testing.assert_allclose(again, plain, rtol=1e-6)


def test_class_weights_of_a_fit_that_failed_are_gone():
    x, y = data(16)
    model = compiled(optimizer=keras.optimizers.SGD(0.0))
    plain = model.fit(x, y, verbose=0).history["b_loss"]

    def stop(epoch, logs=None):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(
            x,
            y,
            class_weight={"b": {0: 2.0, 1: 2.0}},
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=stop)],
            verbose=0,
        )
    np.testing.assert_allclose(model.fit(x, y, verbose=0).history["b_loss"], plain)
