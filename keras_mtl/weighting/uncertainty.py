"""Weights from the noise of each task, which is learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_number
from keras_mtl.weighting.bounded import Bounded
from keras_mtl.weighting.per_task_weighting import (
    PerTaskWeighting,
    constant,
    starting_at,
    values_of,
)

# kind: (factor of exp(-s) L, factor of s)
FORMS = {"regression": (0.5, 0.5), "classification": (1.0, 0.5), "laplace": (1.0, 1.0)}


@keras.saving.register_keras_serializable("keras_mtl")
class Uncertainty(PerTaskWeighting):
    """Homoscedastic uncertainty (UW): the noise of each task is learned.

    With a trained log-variance s for each task,

    $$ L = \\sum_k \\begin{cases}
       \\tfrac12 e^{-s_k} L_k + \\tfrac12 s_k & \\text{regression, } L_k
           \\text{ a mean squared error, } s_k = \\log \\sigma_k^2 \\\\
       e^{-s_k} L_k + \\tfrac12 s_k & \\text{classification, } L_k
           \\text{ a cross-entropy, } \\sigma_k^2 \\text{ its temperature} \\\\
       e^{-s_k} L_k + s_k & \\text{laplace, } L_k
           \\text{ a mean absolute error, } s_k = \\log b_k
       \\end{cases} $$

    The derivative by L, which is the weight in force, is `exp(-s)`, halved for
    regression. At the best s it is proportional to `1 / L`: in the end the
    method does as `ScaleInvariant` does, with the memory of an optimiser in
    between.

    The variable `log_variance` of shape `(T,)` is trained by the model's optimiser;
    `MultiTaskModel` leaves it out of weight decay, which would pull it to 0. An
    absent task gives its s no gradient (momentum of the optimiser may still move
    it). Losses may be zero.
    The total becomes negative where losses are small: that is no fault; look at
    the losses of the tasks. Where losses are far from 1 at first, an optimiser
    with a long memory of the second moment (Adam) is slow on s: start from the
    logarithm of the losses. A loss that is negative for long drives its s to the
    bound.

    Args:
        kinds: `"regression"`, `"classification"` or `"laplace"` for all tasks,
            a list of these, or a dict by task name (regression for a task left
            out). Defaults to `None`: the simple form of most libraries, which
            is the regression form for every task, whatever its loss.
        initial_log_variance: The s to start from: a float for all tasks, a list
            or a dict by task name (0 for a task left out). Defaults to `0.0`.
        max_log_variance: Float. s is clipped to this on either side of 0 after
            each step, which keeps `exp(-s)` finite where a loss is exactly
            zero. The default, `30.0`, leaves room for losses from 1e-13 to 1e13.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If a kind is unknown, if an initial value is beyond
            `max_log_variance`, if there are not as many values as tasks, or if
            a dict names a task that there is not.

    Example:

    ```python
    weighting = keras_mtl.weighting.Uncertainty(["classification", "regression"])
    losses = np.array([0.5, 20.0], "float32")
    weighted, weights = weighting(losses, return_weights=True)
    weights  # [1.0, 0.5]
    ```

    Reference:
        Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to
        Weigh Losses for Scene Geometry and Semantics", CVPR 2018,
        https://arxiv.org/abs/1705.07115
    """

    def __init__(
        self,
        kinds: str | Sequence[str] | Mapping[str, str] | None = None,
        initial_log_variance: float | Sequence[float] | Mapping[str, float] = 0.0,
        max_log_variance: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            {"kinds": kinds, "initial_log_variance": initial_log_variance}, **kwargs
        )
        max_log_variance = check_number("max_log_variance", max_log_variance, above=0)
        for kind in values_of(kinds):
            check_choice("kinds", kind, FORMS)
        for value in values_of(initial_log_variance):
            check_number(
                "initial_log_variance",
                value,
                at_least=-max_log_variance,
                at_most=max_log_variance,
            )
        self.max_log_variance = max_log_variance

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the log-variances."""
        super().build(losses_shape)
        forms = [FORMS[kind] for kind in self.per_task("kinds", "regression")]
        self._loss_factor = constant([of_loss for of_loss, _ in forms])
        self._penalty_factor = constant([of_penalty for _, of_penalty in forms])
        self.log_variance = self.add_weight(
            name="log_variance",
            shape=(self.num_tasks,),
            initializer=starting_at(self.per_task("initial_log_variance", 0.0)),
            constraint=Bounded(self.max_log_variance),
            trainable=True,
            dtype="float32",
        )

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the inverse variances, halved for regression."""
        return ops.multiply(ops.exp(-self.log_variance), self._loss_factor)

    def objective(self, losses: Any, present: Any, weights: Any) -> Any:
        """Returns the negative log-likelihoods, of which s is learned."""
        weight = self.task_weights(losses, present, training=True)
        penalty = ops.multiply(self.log_variance.value, self._penalty_factor)
        return weight * losses + penalty

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "max_log_variance": self.max_log_variance}
