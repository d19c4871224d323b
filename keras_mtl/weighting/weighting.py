"""The contract of every loss weighting."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class Weighting(keras.layers.Layer):
    """Turns the losses of T tasks into one objective.

    A weighting is a Keras layer called with the vector of task losses. It
    returns the weighted task losses, whose sum is the loss that is trained:

    $$ L = \\sum_k w_k L_k $$

    Being a layer, its state (log-variances, running averages, step counters)
    is tracked, trained, saved and restored by Keras.

    A method that is a weighted sum overrides `task_weights` and, if it has
    state, `build` and `update`. That is all there is to a weighting of one's
    own:

    ```python
    @keras.saving.register_keras_serializable("my_package")
    class InverseLoss(keras_mtl.weighting.Weighting):
        def build(self, losses_shape):
            super().build(losses_shape)
            self.average = self.add_state("average", initializer="ones")

        def task_weights(self, losses, present, training):
            return 1.0 / self.average

        def update(self, losses, present, weights):
            moved = 0.9 * self.average + 0.1 * losses
            self.average.assign(ops.where(present > 0, moved, self.average.value))
    ```

    A method whose objective is no weighted sum with constant weights (learned
    weights, for one) also overrides `objective`.

    Args:
        name: String, optional. Name of the layer.

    Call arguments:
        losses: Float tensor of shape `(T,)`, the mean loss of each task over
            its present labels; 0 for a task without any.
        present: Float tensor of shape `(T,)`, 1 for a task with a label in
            this batch and 0 for one without. Defaults to all ones. An absent
            task gives no loss, no gradient and no update of the state.
        training: Boolean. State is updated in training only.
        return_weights: Boolean. Whether to return the weights in force too.

    Returns:
        Float tensor of shape `(T,)`, the weighted losses; with
        `return_weights=True` a pair of them and the weights in force, the
        derivative of the objective by each loss, of shape `(T,)`.
    """

    needs_gradient_norms: bool = False
    """Whether `update_from_gradients` wants the norms of the task gradients."""

    needs_losses_after_step: bool = False
    """Whether `update_after_step` wants the losses after the optimiser's step."""

    snapshot = staticmethod(ops.copy)
    """Copies a tensor. The model exchanges it for what its backend wants."""

    def __init__(self, *, name: str | None = None, **kwargs: Any) -> None:
        kwargs.pop("dtype", None)  # losses are float32 under every dtype policy
        super().__init__(name=name, dtype="float32", **kwargs)
        self._task_names = None

    @property
    def task_names(self) -> list[str] | None:
        """Names of the T tasks, in the order of the losses; None if not known."""
        return None if self._task_names is None else list(self._task_names)

    def set_task_names(self, task_names: Sequence[str]) -> None:
        """Tells the weighting its tasks; the model does so before `build`.

        Args:
            task_names: Names of the tasks, in the order of the losses.
        """
        self._task_names = tuple(task_names)

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the state. Subclasses call it first.

        Args:
            losses_shape: `(T,)`.
        """
        if len(losses_shape) != 1 or losses_shape[0] is None:
            raise ValueError(
                "A weighting is called with a vector of task losses of static "
                f"shape (T,). Received: losses of shape {tuple(losses_shape)}"
            )
        self.num_tasks = int(losses_shape[0])
        self.built = True

    def add_state(
        self,
        name: str,
        shape: tuple[int, ...] | None = None,
        initializer: Any = "zeros",
    ) -> keras.Variable:
        """Adds a float32 variable that is not trained, of shape `(T,)` by default."""
        return self.add_weight(
            name=name,
            shape=(self.num_tasks,) if shape is None else shape,
            initializer=initializer,
            trainable=False,
            dtype="float32",
            aggregation="mean",  # what tf.distribute needs to assign in a step
        )

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the weights in force, `(T,)`, from the state and the losses.

        They are taken as constants: no gradient flows through them. What it
        returns for an absent task (whose loss reads 1 here) is ignored.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override `task_weights`."
        )

    def objective(self, losses: Any, present: Any, weights: Any) -> Any:
        """Returns the weighted losses, `(T,)`: by default `weights * losses`."""
        return weights * losses

    def update(self, losses: Any, present: Any, weights: Any) -> None:
        """Updates the state at a training step, after the weights were taken."""

    def update_from_gradients(
        self, losses: Any, present: Any, gradient_norms: Any
    ) -> None:
        """Updates the state from the norms of the task gradients, `(T,)`.

        Called by the training step, after `call`, where `needs_gradient_norms`
        is set. Norms are those of the unweighted losses, by the kernel of the
        last layer that all tasks share.
        """

    def update_after_step(self, losses: Any, present: Any) -> None:
        """Updates the state from the losses of the same batch after the step.

        Called by the training step where `needs_losses_after_step` is set.
        """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by `fit` after each epoch, outside the graph, before callbacks."""

    def call(
        self,
        losses: Any,
        present: Any = None,
        training: bool = False,
        return_weights: bool = False,
    ) -> Any:
        """Returns the weighted losses; see the class."""
        if present is None:
            present = ops.ones_like(losses)
        present = ops.cast(present, losses.dtype)
        here = present > 0
        # An absent task's loss is 0: one whose logarithm and inverse are finite
        # keeps NaN out of the weights, and out of the gradient of what is masked.
        constants = ops.where(here, ops.stop_gradient(losses), 1.0)
        weights = ops.stop_gradient(self.task_weights(constants, present, training))
        # A copy, since `update` may assign the variable that the weights are:
        # PyTorch would see the new value in the backward pass.
        weights = ops.where(here, self.snapshot(weights), 0.0)
        losses = ops.where(here, losses, 1.0)
        weighted = self.objective(losses, present, weights)
        if type(self).objective is not Weighting.objective:
            weighted = ops.where(here, weighted, 0.0)
        if training:
            # A loss that is not finite (a step that the loss scale skips, for one)
            # counts as absent: it would stay in the state for good.
            finite = ops.isfinite(constants)
            observed = present * ops.cast(finite, losses.dtype)
            self.update(ops.where(finite, constants, 1.0), observed, weights)
        return (weighted, weights) if return_weights else weighted

    def compute_output_spec(
        self, losses, present=None, training=False, return_weights=False
    ):
        """Shape and dtype of what `call` returns."""
        spec = keras.KerasTensor(losses.shape, dtype="float32")
        return (spec, spec) if return_weights else spec
