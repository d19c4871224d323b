"""The steps of weightings that need more than the losses."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mtl
from keras_mtl.weighting import Weighting

ROWS = 32


@keras.saving.register_keras_serializable("tests")
class RecordsNorms(Weighting):
    """Keeps the gradient norms of the last step; weights are 1."""

    needs_gradient_norms = True

    def build(self, losses_shape):
        super().build(losses_shape)
        self.norms = self.add_state("norms")

    def task_weights(self, losses, present, training):
        return ops.ones_like(losses)

    def update_from_gradients(self, losses, present, gradient_norms):
        self.norms.assign(gradient_norms)


@keras.saving.register_keras_serializable("tests")
class RecordsLossesAfter(Weighting):
    """Keeps the losses after the last step; weights are 1."""

    needs_losses_after_step = True

    def build(self, losses_shape):
        super().build(losses_shape)
        self.after = self.add_state("after")

    def task_weights(self, losses, present, training):
        return ops.ones_like(losses)

    def update_after_step(self, losses, present):
        self.after.assign(losses)


def data(seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, 4)).astype("float32")
    y = {
        "a": (x @ generator.normal(size=(4, 1))).astype("float32"),
        "b": (x @ generator.normal(0, 10, size=(4, 1))).astype("float32"),
    }
    return x, y


def make_model(weighting=None, optimizer=None, noise=False, seed=3, **kwargs):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    h = keras.layers.Dense(3, name="trunk", kernel_regularizer="l2")(inputs)
    if noise:
        h = keras.layers.BatchNormalization(name="norm")(h)
        h = keras.layers.Dropout(0.5, seed=seed)(h)
    outputs = {name: keras.layers.Dense(1, name=name)(h) for name in "ab"}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile(
        optimizer or keras.optimizers.SGD(0.01),
        loss="mse",
        weighting=weighting,
        **kwargs,
    )
    return model


def kernel_norms(model, x, y):
    """Norms of the gradients of each task's loss by the trunk's kernel."""
    trunk = ops.convert_to_numpy(model.get_layer("trunk").kernel.value)
    bias = ops.convert_to_numpy(model.get_layer("trunk").bias.value)
    norms = []
    for name in "ab":
        head = ops.convert_to_numpy(model.get_layer(name).kernel.value)
        offset = ops.convert_to_numpy(model.get_layer(name).bias.value)
        error = (x @ trunk + bias) @ head + offset - y[name]
        gradient = 2 * x.T @ error @ head.T / np.isfinite(y[name]).sum()
        norms.append(np.linalg.norm(gradient))
    return norms


def values(variables):
    return [np.array(ops.convert_to_numpy(v.value)) for v in variables]


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_gradient_norms_are_those_of_the_shared_kernel(scale):
    x, y = data()
    optimizer = keras.optimizers.SGD(0.01)
    if scale:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
    model = make_model(RecordsNorms(), optimizer)
    expected = kernel_norms(model, x, y)
    model.train_on_batch(x, y)
    norms = ops.convert_to_numpy(model.weighting.norms.value)
    np.testing.assert_allclose(norms, expected, rtol=1e-4)


def test_gradient_norm_of_an_absent_task_is_zero():
    x, y = data()
    y["a"][:] = np.nan
    model = make_model(RecordsNorms())
    model.train_on_batch(x, y)
    norms = ops.convert_to_numpy(model.weighting.norms.value)
    assert norms[0] == 0 and norms[1] > 0


@pytest.mark.parametrize("weighting", [RecordsNorms, RecordsLossesAfter])
@pytest.mark.parametrize("noise", [False, True])
def test_steps_train_as_keras_trains(weighting, noise):
    """Same weights, moving averages, seeds and logs as by the step of Keras."""
    x, y = data()
    plain, special = make_model(noise=noise), make_model(weighting(), noise=noise)
    logs = [
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0).history
        for model in (plain, special)
    ]
    assert set(logs[0]) == set(logs[1])
    for key in logs[0]:
        np.testing.assert_allclose(logs[1][key], logs[0][key], rtol=1e-4, err_msg=key)
    for plain_layer, special_layer in zip(plain.layers, special.layers, strict=True):
        for expected, value in zip(
            values(plain_layer.variables), values(special_layer.variables), strict=True
        ):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_losses_after_the_step_are_those_of_the_new_weights(jit_compile):
    x, y = data()
    y["a"][::2] = np.nan
    model = make_model(RecordsLossesAfter(), jit_compile=jit_compile)
    model.train_on_batch(x, y)
    after = ops.convert_to_numpy(model.weighting.after.value)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(after, [logs["a_loss"], logs["b_loss"]], rtol=1e-5)


@pytest.mark.parametrize("seed", [3, None])
def test_losses_after_a_step_that_moves_nothing_are_the_losses(seed):
    """The second forward pass has the dropout masks of the first."""
    x, y = data()
    still = keras.optimizers.SGD(0.0)
    model = make_model(RecordsLossesAfter(), still, noise=True, seed=seed)
    logs = model.train_on_batch(x, y, return_dict=True)
    after = ops.convert_to_numpy(model.weighting.after.value)
    np.testing.assert_allclose(after, [logs["a_loss"], logs["b_loss"]], rtol=1e-5)


def test_gradient_norms_need_a_shared_layer():
    inputs = keras.Input((4,))
    outputs = {name: keras.layers.Dense(1)(inputs) for name in "ab"}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    with pytest.raises(ValueError, match=r"all tasks share.*Received"):
        model.compile("sgd", loss="mse", weighting=RecordsNorms())


@pytest.mark.parametrize("name", ["grad_norm", "famo"])
def test_weightings_train_by_name(name):
    x, y = data()
    model = make_model(keras_mtl.weighting.get(name), keras.optimizers.Adam(0.05))
    history = model.fit(x, y, batch_size=8, epochs=10, verbose=0).history
    assert history["a_loss"][-1] < history["a_loss"][0]
    assert history["b_loss"][-1] < history["b_loss"][0]
    assert history["a_weight"][-1] > history["b_weight"][-1]  # a has the small losses
