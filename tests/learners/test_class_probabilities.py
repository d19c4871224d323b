import gc
import weakref

import keras
import numpy as np
import pytest
from built_learner import softmax, to_numpy
from keras import ops

from keras_mtl.learners import class_probabilities as make_probabilities
from keras_mtl.learners.class_probabilities import logits_of

LOGITS = np.array([[3.0, -40.0, 0.5], [1e9, -1e9, 0.0]], "float32")


def test_a_softmax_in_float32():
    probabilities = make_probabilities(ops.cast(LOGITS[:1], "float16"))
    assert keras.backend.standardize_dtype(probabilities.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(probabilities), softmax(LOGITS[:1]), rtol=1e-2)


def test_the_logits_are_exact():
    probabilities = make_probabilities(ops.convert_to_tensor(LOGITS))
    np.testing.assert_array_equal(to_numpy(logits_of(probabilities)), LOGITS)


def test_each_has_its_own_logits():
    first, second = (make_probabilities(ops.convert_to_tensor(x)) for x in LOGITS)
    np.testing.assert_array_equal(to_numpy(logits_of(first)), LOGITS[0])
    np.testing.assert_array_equal(to_numpy(logits_of(second)), LOGITS[1])


def test_of_other_probabilities_it_is_the_logarithm():
    foreign = ops.convert_to_tensor(np.array([0.25, 0.75, 0.0], "float32"))
    given = to_numpy(logits_of(foreign))
    np.testing.assert_allclose(given[:2], np.log([0.25, 0.75]), rtol=1e-6)
    assert np.isfinite(given).all() and given[2] < -80
    changed = 1.0 * make_probabilities(ops.convert_to_tensor(LOGITS[:1]))
    np.testing.assert_allclose(
        to_numpy(logits_of(changed))[0, ::2],
        np.log(softmax(LOGITS[:1]))[0, ::2],
        rtol=1e-5,
    )


def test_they_are_forgotten_with_the_probabilities():
    logits = ops.convert_to_tensor(LOGITS)
    probabilities = make_probabilities(logits)
    forgotten = weakref.ref(logits)
    del logits
    gc.collect()
    assert forgotten() is not None
    del probabilities
    gc.collect()
    assert forgotten() is None


def test_they_are_there_in_a_compiled_function():
    logits = ops.convert_to_tensor(LOGITS[:1])
    compiled = _compiled(lambda x: logits_of(make_probabilities(x)))
    np.testing.assert_array_equal(to_numpy(compiled(logits)), LOGITS[:1])


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="nothing is traced on PyTorch"
)
def test_they_are_forgotten_with_what_was_traced():
    seen = []

    def function(x):
        logits = 2 * x
        seen.append(weakref.ref(logits))
        return make_probabilities(logits) + 1

    compiled = _compiled(function)
    compiled(ops.convert_to_tensor(LOGITS))
    del compiled, function
    gc.collect()
    assert [reference() for reference in seen] == [None] * len(seen)


def test_a_query_that_is_very_wrong_has_a_gradient():
    logits = keras.Variable(np.array([[200.0, -200.0]], "float32"))
    labels = np.array([[0.0, 1.0]], "float32")

    def loss():
        given = logits_of(make_probabilities(logits + 0.0))
        return ops.sum(
            keras.losses.categorical_crossentropy(labels, given, from_logits=True)
        )

    np.testing.assert_allclose(_gradient(loss, logits), [[1.0, -1.0]], atol=1e-6)


def _compiled(function):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


def _gradient(loss, variable):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, variable.value).numpy()
    if backend == "jax":
        import jax

        def of_value(value):
            with keras.StatelessScope([(variable, value)]):
                return loss()

        return np.asarray(jax.grad(of_value)(variable.value))
    value = loss()
    value.backward()
    return variable.value.grad.numpy()
