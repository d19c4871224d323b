import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.layers.independent_initializers import (
    StackedInitializer,
    independent_initializers,
)


def draws(initializer, count, shape=(50, 40)):
    return [
        ops.convert_to_numpy(draw(shape, dtype="float32"))
        for draw in independent_initializers(initializer, count)
    ]


@pytest.mark.parametrize(
    "seed",
    [None, 0, 5, keras.random.SeedGenerator(5)],
    ids=["none", "0", "5", "generator"],
)
def test_draws_are_independent(seed):
    values = draws(keras.initializers.GlorotUniform(seed), 4)
    correlation = np.corrcoef([v.ravel() for v in values]) - np.eye(4)
    assert np.abs(correlation).max() < 0.1


def test_an_integer_seed_gives_the_same_draws_again():
    first = draws(keras.initializers.HeNormal(5), 3)
    for a, b in zip(first, draws(keras.initializers.HeNormal(5), 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_seed_the_global_seed_decides():
    def drawn():
        keras.utils.set_random_seed(1)
        return draws(keras.initializers.HeNormal(), 3)

    for a, b in zip(drawn(), drawn(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_initializers_without_randomness_and_functions_stay():
    assert all((v == 2.0).all() for v in draws(keras.initializers.Constant(2.0), 2))

    def ones(shape, dtype=None):
        return ops.ones(shape, dtype)

    assert all((v == 1.0).all() for v in draws(ones, 2))


@pytest.mark.parametrize("initializer", ["orthogonal", "lecun_normal"])
def test_each_slice_is_drawn_as_if_alone(initializer):
    initializer = keras.initializers.get(initializer)
    stack = ops.convert_to_numpy(StackedInitializer(initializer)((3, 60, 50)))
    assert stack.shape == (3, 60, 50)
    alone = ops.convert_to_numpy(initializer((60, 50)))
    np.testing.assert_allclose(stack.std((1, 2)), alone.std(), rtol=0.1)
