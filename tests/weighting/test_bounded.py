import keras
import numpy as np
from keras import ops

from keras_mtl.weighting.bounded import Bounded


def test_values_are_clipped_on_both_sides():
    clipped = ops.convert_to_numpy(Bounded(2.0)(np.array([-9.0, -1.0, 0.5, 3.0])))
    np.testing.assert_array_equal(clipped, [-2.0, -1.0, 0.5, 2.0])


def test_an_optimiser_applies_it_after_its_step():
    variable = keras.Variable([0.0, 1.5], trainable=True)
    variable.constraint = Bounded(2.0)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([ops.array([50.0, -0.25])], [variable])
    np.testing.assert_allclose(ops.convert_to_numpy(variable), [-2.0, 1.75])


def test_it_is_serialised():
    config = keras.saving.serialize_keras_object(Bounded(2.0))
    assert keras.saving.deserialize_keras_object(config).bound == 2.0
