"""Gradients of one size at the shared layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_number
from keras_mtl.weighting.masked_adam import MaskedAdam
from keras_mtl.weighting.per_task_weighting import PerTaskWeighting, values_of
from keras_mtl.weighting.present_tasks import mean_over_present

SMALLEST_WEIGHTS = {"multiplicative": 1e-24, "additive": 1e-3}


@keras.saving.register_keras_serializable("keras_mtl")
class GradNorm(PerTaskWeighting):
    """Gradients of one size at the last shared layer, larger for slow tasks.

    With the norm `n_k` of the gradient of the unweighted loss by the kernel W of
    the last layer that all tasks share, the weighted norm `G_k = w_k n_k` is
    drawn to a target:

    $$ \\min_w \\sum_k \\big| G_k - \\bar G \\, r_k^\\alpha \\big|, \\qquad
       r_k = \\frac{L_k / L_k(0)}{\\mathrm{mean}_j \\, L_j / L_j(0)}, \\qquad
       \\frac{\\partial}{\\partial w_k} =
           \\mathrm{sign}(G_k - \\bar G \\, r_k^\\alpha) \\, n_k $$

    where the target is held constant, and the weights are renormalised to sum
    to T after each step. The derivative is known in closed form, so that T norms
    are all that is needed: T small backward passes and none of second order.

    The step is taken in the logarithm of the weights by default: each is
    multiplied by a factor near 1, stays positive, and can balance losses whose
    scales are many powers of ten apart, to within the step size. The paper's
    step on the weights themselves (`step="additive"`) is clipped at
    `min_weight`, and cannot balance scales whose ratio is above `1 / learning_rate`.
    The norms are divided by their mean, that of the present tasks, before the
    step.

    An absent task keeps its weight; the others are renormalised among
    themselves. Losses must be positive for alpha other than 0: where the first
    one is not, the relative loss of the task is 1.

    Args:
        alpha: Float, how much more a task that lags gets. The paper has 1.5 on
            NYUv2 and 0.12 on its toy. Defaults to `1.5`.
        learning_rate: Float, step size on the weights. Defaults to `0.025`.
        optimizer: `"adam"` or `"sgd"`, of the weights. Defaults to `"adam"`.
        step: `"multiplicative"` or `"additive"`. Defaults to
            `"multiplicative"`.
        initial_losses: The `L(0)` of each task: a float for all, a list or a
            dict by task name, such as the logarithm of the number of classes.
            Defaults to `None`: the first loss that is seen (also for a task
            left out).
        min_weight: Float, the smallest weight, before renormalisation. Defaults
            to `None`: `1e-24`, or `1e-3` for the additive step.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `alpha` is negative, if `learning_rate`, `min_weight` or an
            initial loss is not positive, if `optimizer` or `step` is unknown,
            if there are not as many initial losses as tasks, or if a dict names
            a task that there is not.

    Example:

    ```python
    weighting = keras_mtl.weighting.GradNorm(alpha=0.0, optimizer="sgd")
    losses, present = np.ones(2, "float32"), np.ones(2, "float32")
    norms = np.array([1.0, 3.0], "float32")
    for _ in range(200):
        weighting(losses, present, training=True)
        weighting.update_from_gradients(losses, present, norms)
    weighting.task_weight * norms  # both about 1.5
    ```

    Reference:
        Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss
        Balancing in Deep Multitask Networks", ICML 2018,
        https://arxiv.org/abs/1711.02257
    """

    needs_gradient_norms = True

    def __init__(
        self,
        alpha: float = 1.5,
        learning_rate: float = 0.025,
        optimizer: str = "adam",
        step: str = "multiplicative",
        initial_losses: float | Sequence[float] | Mapping[str, float] | None = None,
        min_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__({"initial_losses": initial_losses}, **kwargs)
        for loss in values_of(initial_losses):
            check_number("initial_losses", loss, above=0)
        self.alpha = check_number("alpha", alpha, at_least=0)
        self.learning_rate = check_number("learning_rate", learning_rate, above=0)
        self.optimizer = check_choice("optimizer", optimizer, ("adam", "sgd"))
        self.step = check_choice("step", step, SMALLEST_WEIGHTS)
        if min_weight is not None:
            min_weight = check_number("min_weight", min_weight, above=0)
        self.min_weight = min_weight

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the weights, their optimiser and the first losses."""
        super().build(losses_shape)
        first = self.per_task("initial_losses", None)
        self.task_weight = self.add_state("task_weight", initializer="ones")
        self.first_losses = self.add_per_task_state(
            "first_losses", [1.0 if loss is None else loss for loss in first]
        )
        self.seen = self.add_per_task_state(
            "seen", [float(loss is not None) for loss in first]
        )
        if self.optimizer == "adam":
            self.adam = MaskedAdam(self, self.learning_rate)

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the weights that the last step left."""
        return self.task_weight

    def update_from_gradients(
        self, losses: Any, present: Any, gradient_norms: Any
    ) -> None:
        """Draws the weighted norms of the gradients to their targets.

        Args:
            losses: Unweighted losses, `(T,)`.
            present: 1 for a task that is in the batch, else 0, `(T,)`.
            gradient_norms: Norms of the gradients of the unweighted losses,
                `(T,)`. A task whose norm or loss is not finite counts as absent.
        """
        finite = ops.logical_and(ops.isfinite(gradient_norms), ops.isfinite(losses))
        present = ops.where(finite, ops.cast(present, "float32"), 0.0)
        here = present > 0
        losses = ops.where(here, losses, 1.0)
        norms = relative_to_mean(ops.where(here, gradient_norms, 0.0), present)
        weight = ops.copy(self.task_weight)
        # Both are relative to their mean, so that no scale of the losses matters.
        weighted = relative_to_mean(weight * norms, present)
        target = ops.power(self._training_rates(losses, present), self.alpha)
        sign = ops.sign(weighted - target)
        moved = self._stepped(weight, sign, norms, weighted, present)
        self.task_weight.assign(self._renormalise(weight, moved, present))

    def _training_rates(self, losses: Any, present: Any) -> Any:
        """Returns the relative losses over their mean, keeping the first losses."""
        new = ops.logical_and(present > 0, self.seen < 1)
        first = ops.where(new, losses, self.first_losses.value)
        self.first_losses.assign(first)
        self.seen.assign(ops.maximum(self.seen.value, present))
        known = first > 0
        ratio = ops.where(known, losses / ops.where(known, first, 1.0), 1.0)
        return relative_to_mean(ops.maximum(ratio, 0.0), present)

    def _stepped(
        self, weight: Any, sign: Any, norms: Any, weighted: Any, present: Any
    ) -> Any:
        """Returns the weights after a step, before they are renormalised."""
        multiplicative = self.step == "multiplicative"
        gradient = sign * (weighted if multiplicative else norms)
        if self.optimizer == "adam":
            change = self.adam.step(gradient, present)
        else:
            change = self.learning_rate * gradient
        moved = weight * ops.exp(-change) if multiplicative else weight - change
        if self.min_weight is None:
            return ops.maximum(moved, SMALLEST_WEIGHTS[self.step])
        return ops.maximum(moved, self.min_weight)

    def _renormalise(self, weight: Any, moved: Any, present: Any) -> Any:
        """Returns weights that sum to T, with those of absent tasks as they were."""
        total = self.num_tasks - ops.sum((1.0 - present) * weight)
        share = total / ops.maximum(ops.sum(present * moved), 1e-30)
        return ops.where(present > 0, share * moved, weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
            "optimizer": self.optimizer,
            "step": self.step,
            "min_weight": self.min_weight,
        }


def relative_to_mean(values: Any, present: Any) -> Any:
    """Returns the values over their mean at the present tasks; 1 if that is 0."""
    mean = mean_over_present(values, present)
    return ops.where(mean > 0, values / ops.where(mean > 0, mean, 1.0), 1.0)
