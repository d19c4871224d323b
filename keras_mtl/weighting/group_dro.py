"""The worst case: weights that grow with the losses."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.weighting.present_tasks import softmax_over_present
from keras_mtl.weighting.weighting import Weighting


@keras.saving.register_keras_serializable("keras_mtl")
class GroupDRO(Weighting):
    """The worst case, min max: exponentiated gradient ascent on the weights.

    $$ \\min_\\theta \\max_{q \\in \\Delta} \\sum_k q_k L_k, \\qquad
       q_k \\leftarrow q_k \\, e^{\\eta L_k} \\Big/ \\sum_j q_j \\, e^{\\eta L_j} $$

    (group distributionally robust optimisation). The weights go to the task of
    the largest loss, so the losses must be comparable: put regression labels on
    one scale, or set `relative=True`. Losses may be of any sign (positive ones
    if relative). The weights sum to 1, so the effective learning rate is 1/T
    of that of `Equal`.

    The log-weights are summed without normalisation, with a second variable
    for the digits that float32 drops: they neither overflow nor stall in a long
    run. A task that is absent from a batch keeps its own; q is the softmax over
    the tasks that have been seen so far, and the batch leaves the weights of
    the others as they are. A task that is seldom in a batch grows seldom: draw
    the tasks alike often (`keras_mtl.data.TaskMixture`).

    Args:
        eta: Float, step size of the ascent. Defaults to `0.01`.
        relative: Boolean. Whether to divide each loss by the first one seen of
            its task, in the ascent and in the objective. Defaults to `False`.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `eta` is not positive.

    Example:

    ```python
    weighting = keras_mtl.weighting.GroupDRO(eta=0.1)
    losses = np.array([0.5, 20.0], "float32")
    _, weights = weighting(losses, training=True, return_weights=True)
    weights  # [0.125, 0.875]
    ```

    Reference:
        Sagawa et al., "Distributionally Robust Neural Networks for Group
        Shifts", ICLR 2020, https://arxiv.org/abs/1911.08731
    """

    def __init__(
        self, eta: float = 0.01, relative: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.eta = check_number("eta", eta, above=0)
        self.relative = bool(relative)

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the log-weights."""
        super().build(losses_shape)
        self.log_weights = self.add_state("log_weights")
        self.remainder = self.add_state("remainder")
        self.seen = self.add_state("seen")
        if self.relative:
            self.first_losses = self.add_state("first_losses", initializer="ones")

    def _first(self, losses: Any) -> Any:
        """Returns what the losses are divided by."""
        if not self.relative:
            return 1.0
        first = self.seen * self.first_losses + (1.0 - self.seen) * losses
        return ops.where(first > 0, first, 1.0)

    def _ascended(self, losses: Any, present: Any) -> tuple[Any, Any]:
        """Returns the log-weights and their remainder after one step."""
        gain = self.eta * losses / self._first(losses)
        step = present * (gain + self.remainder)
        log_weights = self.log_weights + step
        lost = step - (log_weights - self.log_weights)
        return log_weights, present * lost + (1.0 - present) * self.remainder

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns q, after the step of the ascent where in training."""
        if training:
            log_weights, remainder = self._ascended(losses, present)
        else:
            log_weights, remainder = self.log_weights.value, self.remainder.value
        seen = ops.maximum(self.seen.value, present)
        # The remainder counts only beside log-weights that are near zero.
        q = softmax_over_present((log_weights - ops.max(log_weights)) + remainder, seen)
        return q / self._first(losses)

    def update(self, losses: Any, present: Any, weights: Any) -> None:
        """Makes the step of the ascent."""
        log_weights, remainder = self._ascended(losses, present)
        if self.relative:
            new = present * (1.0 - self.seen)
            first = new * losses + (1.0 - new) * self.first_losses
            self.first_losses.assign(first)
        self.log_weights.assign(log_weights)
        self.remainder.assign(remainder)
        self.seen.assign(ops.maximum(self.seen.value, present))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "eta": self.eta, "relative": self.relative}
