"""The same thorough check for every layer.

`inputs` is a tuple of what the layer is called with: arrays, or dicts of arrays,
all with the same number of rows. `make_layer` makes a new layer each time.
"""

import json
import pathlib
import tempfile

import keras
import numpy as np
import pytest

slow_to_compile = (
    pytest.mark.slow if keras.backend.backend() == "torch" else lambda f: f
)
"""Marks tests that compile the step, which takes torch many seconds."""


def check_layer(make_layer, inputs, keeps_dtype=False):
    """Everything but masks, half precision and jit, which get tests of their own.

    With `keeps_dtype` the outputs are of the dtype of the inputs, not of the layer's.
    """
    inputs = as_float32(inputs)
    check_shapes_and_dtypes(make_layer, inputs)
    check_config(make_layer, inputs)
    check_saving(make_layer, inputs)
    check_dtype_policies(make_layer, inputs, keeps_dtype)
    check_permutation(make_layer, inputs)
    check_batch_sizes(make_layer, inputs)
    check_training(make_layer, inputs)


def check_shapes_and_dtypes(make_layer, inputs):
    layer = make_layer()
    eager = layer(*inputs)
    shapes = keras.tree.map_structure(lambda a: a.shape, inputs)
    computed = layer.compute_output_shape(*shapes)
    assert computed == keras.tree.map_structure(lambda y: tuple(y.shape), eager)

    for batch in (None, number_of_rows(inputs)):
        symbolic = make_layer()(*symbolic_inputs(inputs, batch))
        keras.tree.assert_same_structure(symbolic, eager)
        for spec, y in zip(leaves(symbolic), leaves(eager), strict=True):
            assert tuple(spec.shape) == (batch, *y.shape[1:])
            assert spec.dtype == keras.backend.standardize_dtype(y.dtype)


def check_config(make_layer, inputs):
    layer = make_layer()
    config = layer.get_config()
    assert json.loads(json.dumps(config))
    copy = type(layer).from_config(config)
    assert without_models(copy.get_config()) == without_models(config)

    serialized = keras.saving.serialize_keras_object(layer)
    assert serialized["registered_name"].startswith("keras_mtl>")
    copy = keras.saving.deserialize_keras_object(serialized)
    layer(*inputs), copy(*inputs)
    copy.set_weights(randomize(layer).get_weights())
    assert_equal(copy(*inputs), layer(*inputs))


def check_saving(make_layer, inputs):
    model, layer = functional_model(make_layer, inputs)
    randomize(layer)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
    flat = leaves(inputs)
    assert_equal(loaded(flat), model(flat))


def check_dtype_policies(make_layer, inputs, keeps_dtype=False):
    weights = expected = None
    for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        layer = make_layer()
        symbolic = layer(*symbolic_inputs(inputs))
        keras.config.set_dtype_policy("float32")
        if weights is None:
            weights = randomize(layer).get_weights()
            expected = numpy_outputs(layer(*inputs))
        layer.set_weights(weights)
        outputs = layer(*inputs)
        for y in [*leaves(outputs), *leaves(symbolic)]:
            dtype = keras.backend.standardize_dtype(y.dtype)
            assert dtype == ("float32" if keeps_dtype else layer.compute_dtype)
        assert all(v.dtype == "float32" for v in layer.trainable_variables)
        for y, e in zip(numpy_outputs(outputs), expected, strict=True):
            scale = 1.0 + np.abs(e).max()
            np.testing.assert_allclose(y / scale, e / scale, atol=0.03)


def check_half_precision_gradients(make_layer, inputs):
    """One step in mixed precision moves the weights as one in float32 does."""
    inputs = as_float32(inputs)
    steps = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        model, layer = functional_model(make_layer, inputs)
        keras.config.set_dtype_policy("float32")
        before = randomize(layer).get_weights()
        fit(
            model,
            layer,
            as_float32(inputs),
            batch_size=number_of_rows(inputs),
            epochs=1,
        )
        after = layer.get_weights()
        steps.append([new - old for new, old in zip(after, before, strict=True)])
    for exact, half in zip(*steps, strict=True):
        np.testing.assert_allclose(half, exact, atol=0.15 * np.abs(exact).max() + 1e-6)


def check_permutation(make_layer, inputs):
    layer = make_layer()
    layer(*inputs)
    randomize(layer)
    order = np.random.default_rng(1).permutation(number_of_rows(inputs))
    permuted = layer(*rows(inputs, order))
    for y, p in zip(
        numpy_outputs(layer(*inputs)), numpy_outputs(permuted), strict=True
    ):
        np.testing.assert_allclose(p, y[order], rtol=1e-5, atol=1e-5)


def check_batch_sizes(make_layer, inputs):
    model, layer = functional_model(make_layer, inputs)
    randomize(layer)
    expected = numpy_outputs(layer(*inputs))
    answers = [model(leaves(rows(inputs, slice(size)))) for size in (1, 2, 10)]
    answers.append(model.predict(leaves(inputs), batch_size=4, verbose=0))
    for answer in answers:
        for y, e in zip(numpy_outputs(answer), expected, strict=True):
            np.testing.assert_allclose(y, e[: len(y)], rtol=1e-5, atol=1e-5)


def check_training(make_layer, inputs, jit_compile="auto"):
    """Every trainable variable is reached by a finite gradient.

    In a variable with the tasks stacked along axis 0, every slice is.
    """
    model, layer = functional_model(make_layer, inputs)
    if not layer.trainable_variables:
        return
    before = [np.copy(w) for w in numpy_values(layer.trainable_variables)]
    # Of 10 rows the last batch is a partial one.
    fit(model, layer, inputs, batch_size=4, epochs=3, jit_compile=jit_compile)
    after = numpy_values(layer.trainable_variables)
    for variable, old, new in zip(
        layer.trainable_variables, before, after, strict=True
    ):
        assert np.isfinite(new).all(), variable.path
        changed = old != new
        if getattr(layer, "stacked_by_task", False):
            assert changed.reshape(len(new), -1).any(axis=1).all(), variable.path
        assert changed.any(), variable.path


def fit(model, layer, inputs, batch_size, epochs, jit_compile="auto"):
    rng = np.random.default_rng(2)
    targets = [rng.normal(size=y.shape) for y in numpy_outputs(layer(*inputs))]
    model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit_compile)
    model.fit(
        leaves(inputs),
        targets[0] if len(targets) == 1 else targets,
        batch_size=batch_size,
        epochs=epochs,
        verbose=0,
    )


def check_jit(make_layer, inputs):
    """As `check_training`, in a compiled step."""
    check_training(make_layer, as_float32(inputs), jit_compile=True)


def check_mask(make_layer, inputs, passes=True):
    """The mask of the first argument, steps that are all zero, reaches the outputs."""
    inputs = as_float32(inputs)
    first, *others = symbolic_inputs(inputs)
    masked = keras.tree.map_structure(lambda x: keras.layers.Masking()(x), first)
    outputs = make_layer()(masked, *others)
    masks = keras.tree.map_structure(lambda y: MaskReader()(y), outputs)
    model = keras.Model(leaves([first, *others]), leaves(masks))

    flat = leaves(inputs)
    expected = [(x != 0).any(-1) for x in leaves(inputs[0])]
    assert any(not e.all() for e in expected), "the inputs have no masked step"
    if len(expected) < len(model.outputs):
        expected = expected * len(model.outputs)
    for read in (model.predict(flat, verbose=0), model(flat)):
        for mask, e in zip(numpy_outputs(read), expected, strict=True):
            np.testing.assert_array_equal(mask, e if passes else np.full_like(mask, -1))


@keras.saving.register_keras_serializable("layer_check")
class MaskReader(keras.layers.Layer):
    """Returns the mask of its input as numbers, -1 where there is none."""

    supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            return keras.ops.full(keras.ops.shape(inputs)[:1], -1.0)
        return keras.ops.cast(mask, "float32")

    def compute_mask(self, inputs, previous_mask):
        return None


def without_models(config):
    """The config but for models in it, whose inputs and shapes Keras writes anew."""
    if isinstance(config, list):
        return [without_models(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") in ("Functional", "Sequential"):
        return "a model"
    return {key: without_models(entry) for key, entry in config.items()}


def functional_model(make_layer, inputs):
    symbolic = symbolic_inputs(inputs)
    layer = make_layer()
    outputs = leaves(layer(*symbolic))
    outputs = outputs[0] if len(outputs) == 1 else outputs
    return keras.Model(leaves(symbolic), outputs), layer


def symbolic_inputs(inputs, batch=None):
    return keras.tree.map_structure(
        lambda a: keras.Input(
            batch_shape=(batch, *a.shape[1:]),
            dtype=keras.backend.standardize_dtype(a.dtype),
        ),
        inputs,
    )


def randomize(layer):
    """Gives every float variable values of its own, all positive, so that a layer that
    starts as the identity is none, and a variance stays one."""
    rng = np.random.default_rng(3)
    layer.set_weights(
        [
            rng.uniform(0.2, 1.0, w.shape).astype(w.dtype) if w.dtype.kind == "f" else w
            for w in layer.get_weights()
        ]
    )
    return layer


def as_float32(inputs):
    return keras.tree.map_structure(
        lambda a: a.astype("float32") if a.dtype == "float64" else a, tuple(inputs)
    )


def rows(inputs, index):
    return keras.tree.map_structure(lambda a: a[index], inputs)


def leaves(nest):
    """The leaves in an order that is the same on every backend: keys sorted."""
    if isinstance(nest, dict):
        nest = [nest[key] for key in sorted(nest)]
    if isinstance(nest, list | tuple):
        return [leaf for entry in nest for leaf in leaves(entry)]
    return [nest]


def number_of_rows(inputs):
    return len(leaves(inputs)[0])


def numpy_outputs(outputs):
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
        for y in leaves(outputs)
    ]


def numpy_values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def assert_equal(outputs, expected):
    for y, e in zip(numpy_outputs(outputs), numpy_outputs(expected), strict=True):
        np.testing.assert_allclose(y, e, rtol=1e-6, atol=1e-6)


def masked(inputs, steps):
    """The sequences with masked steps after them."""

    def longer(x):
        padding = np.zeros((len(x), steps, *x.shape[2:]), x.dtype)
        return keras.layers.Masking()(np.concatenate([x, padding], axis=1))

    return keras.tree.map_structure(longer, inputs)


def check_padding(make_layer, inputs, steps=3):
    """Masked steps after the sequences change no output and no loss.

    Of outputs that are sequences the first steps are compared.
    """
    inputs = as_float32([inputs])[0]
    layer = make_layer()
    expected = numpy_outputs(layer(inputs))
    losses = numpy_values(layer.losses)
    padded = numpy_outputs(layer(masked(inputs, steps)))
    for y, e in zip(padded, expected, strict=True):
        if y.shape != e.shape:
            y = y[:, : e.shape[1]]
        np.testing.assert_allclose(y, e, atol=1e-5)
    for loss, e in zip(numpy_values(layer.losses), losses, strict=True):
        np.testing.assert_allclose(loss, e, rtol=1e-4)
