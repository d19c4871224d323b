"""Loss weightings as a user would write them: each kind of state once."""

import keras
from keras import ops

from keras_mtl.weighting import Weighting


@keras.saving.register_keras_serializable("keras_mtl_tests")
class InverseMean(Weighting):
    """Weights 1 / (moving average of the loss): state that is not trained."""

    def build(self, losses_shape):
        super().build(losses_shape)
        self.average = self.add_state("average", initializer="ones")

    def task_weights(self, losses, present, training):
        return 1.0 / self.average

    def update(self, losses, present, weights):
        moved = 0.9 * self.average + 0.1 * losses
        self.average.assign(ops.where(present > 0, moved, self.average.value))


@keras.saving.register_keras_serializable("keras_mtl_tests")
class LogVariance(Weighting):
    """exp(-s) L + s / 2 with a trained s."""

    def build(self, losses_shape):
        super().build(losses_shape)
        self.log_variance = self.add_weight(
            name="log_variance", shape=(self.num_tasks,), initializer="zeros"
        )

    def task_weights(self, losses, present, training):
        return ops.exp(-self.log_variance)

    def objective(self, losses, present, weights):
        return ops.exp(-self.log_variance) * losses + self.log_variance / 2


@keras.saving.register_keras_serializable("keras_mtl_tests")
class LossesAfterStep(Weighting):
    """Remembers the losses after the step: needs the second forward pass."""

    needs_losses_after_step = True

    def build(self, losses_shape):
        super().build(losses_shape)
        self.after = self.add_state("after", initializer="ones")

    def task_weights(self, losses, present, training):
        return ops.ones_like(losses)

    def update_after_step(self, losses, present):
        self.after.assign(ops.where(present > 0, losses, self.after.value))


@keras.saving.register_keras_serializable("keras_mtl_tests")
class GradientNorms(Weighting):
    """Remembers the norms of the task gradients at the shared kernel."""

    needs_gradient_norms = True

    def build(self, losses_shape):
        super().build(losses_shape)
        self.norms = self.add_state("norms", initializer="ones")

    def task_weights(self, losses, present, training):
        return ops.ones_like(losses)

    def update_from_gradients(self, losses, present, gradient_norms):
        self.norms.assign(ops.where(present > 0, gradient_norms, self.norms.value))
