"""Weights that are computed anew every few steps."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.aggregator_wrapper import AggregatorWrapper
from keras_mtl.aggregation.gramian_aggregator import GramianProblem
from keras_mtl.argument_checks import check_count


@keras.saving.register_keras_serializable("keras_mtl")
class EveryKSteps(AggregatorWrapper):
    """Any aggregator that gives weights, which stay in force for k steps.

    $$ w_t = w(G_t) \\ \\text{if}\\ t \\bmod k = 0, \\quad \\text{else}\\ w_{t-1} $$

    A task that was absent when the weights were computed has the weight 1 until they
    are again. The training step of a model leaves out the gradients of the single tasks
    where no weights are computed, and takes one backward pass of the weighted sum.

    Args:
        aggregator: The aggregator, or its name.
        k: Integer, 1 or more.

    Raises:
        ValueError: If `k` is out of range, or if the aggregator gives no weights.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.EveryKSteps("mgda", k=2)
    aggregator.weights(np.diag([1.0, 1.0]))  # [0.5, 0.5]
    aggregator.weights(np.diag([1.0, 3.0]))  # [0.5, 0.5]
    aggregator.weights(np.diag([1.0, 3.0]))  # [0.75, 0.25]
    ```

    Reference:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
        https://arxiv.org/abs/2202.01017
    """

    gramian_only = True

    def __init__(self, aggregator: str | Aggregator, k: int, **kwargs: Any) -> None:
        super().__init__(aggregator, **kwargs)
        self.k = check_count("k", k)

    def build_state(self, shapes: Any) -> None:
        """Creates the weights in force and the counter of steps."""
        self.kept_weights = self.add_state("kept_weights", (self.num_tasks,), "ones")
        self.step = self.add_state("step", ())

    @property
    def counter(self) -> tuple[keras.Variable, int]:
        """The steps since the weights were computed, of k."""
        return self.step, self.k

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights in force."""
        step = ops.copy(ops.convert_to_tensor(self.step))
        old = ops.copy(ops.convert_to_tensor(self.kept_weights))
        due = ops.equal(step, 0.0)

        def compute():
            weights = self.aggregator.task_weights(
                problem.gramian, problem.losses, problem.present, problem.training
            )
            return ops.where(problem.present > 0, weights, 1.0)

        if self.aggregator.variables:
            with self.aggregator.state_kept_unless(due, problem.training):
                weights = ops.where(due, compute(), old)
        else:
            weights = ops.cond(due, compute, lambda: old)
        if problem.training:
            self.kept_weights.assign(weights)
            self.step.assign(ops.where(step + 1 >= self.k, 0.0, step + 1.0))
        return weights

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "k": self.k}
