import keras
import numpy as np
from keras import ops

from keras_mtl.weighting.masked_adam import MaskedAdam
from keras_mtl.weighting.weighting import Weighting


class WithAdam(Weighting):
    def build(self, losses_shape):
        super().build(losses_shape)
        self.adam = MaskedAdam(self, learning_rate=0.1)


def built(num_tasks):
    weighting = WithAdam()
    weighting.build((num_tasks,))
    return weighting


def test_it_takes_the_steps_of_the_adam_of_keras():
    generator = np.random.default_rng(0)
    variable = keras.Variable(np.zeros(3, "float32"))
    optimizer = keras.optimizers.Adam(0.1, epsilon=1e-8)
    adam, value = built(3).adam, np.zeros(3)
    for _ in range(20):
        gradient = generator.normal(size=3).astype("float32")
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        value -= ops.convert_to_numpy(adam.step(ops.array(gradient), ops.ones(3)))
        np.testing.assert_allclose(value, ops.convert_to_numpy(variable), rtol=1e-4)


def test_a_task_that_was_absent_takes_the_steps_of_one_that_was_not():
    steady, absent = built(1).adam, built(2).adam
    gradients = [1.0, -2.0, 0.5]
    for gradient in gradients:
        expected = ops.convert_to_numpy(steady.step(ops.array([gradient]), ops.ones(1)))
        two = ops.array([gradient, 7.0])
        idle = absent.step(two, ops.array([0.0, 1.0]))
        assert ops.convert_to_numpy(idle)[0] == 0.0
        moved = absent.step(two, ops.ones(2))
        np.testing.assert_allclose(ops.convert_to_numpy(moved)[:1], expected)
