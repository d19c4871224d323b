"""Weights averaged over steps."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.aggregator_wrapper import AggregatorWrapper
from keras_mtl.aggregation.gramian_aggregator import GramianProblem
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class WeightAveraging(AggregatorWrapper):
    """Any aggregator that gives weights, with their running mean in force (CR-MOGM).

    $$ \\bar w \\leftarrow m \\bar w + (1 - m) w, \\qquad d = J^\\top \\bar w $$

    The mean of a task starts at its first weight; an absent task keeps its mean.

    Args:
        aggregator: The aggregator, or its name.
        momentum: Float in [0, 1): m. Defaults to `0.9`.

    Raises:
        ValueError: If `momentum` is out of range, or if the aggregator gives no
            weights.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.WeightAveraging("mgda", momentum=0.5)
    aggregator.weights(np.diag([1.0, 1.0]))  # [0.5, 0.5]
    aggregator.weights(np.diag([1.0, 0.0]))  # [0.25, 0.75]
    ```

    Reference:
        Zhou et al., "On the Convergence of Stochastic Multi-Objective Gradient
        Manipulation and Beyond", NeurIPS 2022,
        https://openreview.net/forum?id=ScwfQ7hdwyP
    """

    gramian_only = True

    def __init__(
        self, aggregator: str | Aggregator, momentum: float = 0.9, **kwargs: Any
    ) -> None:
        super().__init__(aggregator, **kwargs)
        self.momentum = check_number("momentum", momentum, at_least=0)
        if self.momentum >= 1:
            raise ValueError(
                f"`momentum` must be less than 1. Received: momentum={momentum!r}"
            )

    def build_state(self, shapes: Any) -> None:
        """Creates the mean weights, and which tasks have one."""
        self.mean_weights = self.add_state("mean_weights", (self.num_tasks,))
        self.started = self.add_state("started", (self.num_tasks,))

    @property
    def counter(self) -> tuple[keras.Variable, int] | None:
        """That of the other, whose weights alone are averaged."""
        return self.aggregator.counter

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the mean weights."""
        weights = self.aggregator.task_weights(
            problem.gramian, problem.losses, problem.present, problem.training
        )
        old = ops.copy(ops.convert_to_tensor(self.mean_weights))
        started = ops.copy(ops.convert_to_tensor(self.started))
        moved = self.momentum * old + (1.0 - self.momentum) * weights
        moved = ops.where(started > 0, moved, weights)
        moved = ops.where(problem.present > 0, moved, old)
        if problem.training:
            self.mean_weights.assign(moved)
            self.started.assign(ops.maximum(started, problem.present))
        return moved

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "momentum": self.momentum}
