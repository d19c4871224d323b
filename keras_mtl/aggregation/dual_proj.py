"""The mean gradient's projection on the dual cone."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.solvers.nonnegative_least_squares import (
    nonnegative_least_squares,
)
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class DualProj(GramianAggregator):
    """The mean gradient, projected on what conflicts with no task.

    $$ d = \\Pi_{\\mathcal C}(g_0) = J^\\top \\arg\\min_{v \\ge 1/T} v^\\top G v,
       \\qquad \\mathcal C = \\{ d : J d \\ge 0 \\} $$

    Where the mean conflicts with no task, it is the mean.

    Args:
        regularization: Float, added to the squared norms of the unit gradients.
            Defaults to `1e-5`.

    Raises:
        ValueError: If `regularization` is not positive.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.DualProj()(jacobian)  # [0.5556, 1.1111, 1.1111]
    ```

    Reference:
        Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning",
        NeurIPS 2017, https://arxiv.org/abs/1706.08840; named so by Quinton, Rey,
        "Jacobian Descent for Multi-Objective Optimization", 2024,
        https://arxiv.org/abs/2406.16232
    """

    def __init__(self, regularization: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regularization = check_number("regularization", regularization, above=0)

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights, each at least 1 / T."""
        matrix = problem.correlation_plus(self.regularization)
        longest = ops.max(problem.norms)
        longest = ops.where(longest > 0, longest, 1.0)
        mean = problem.norms / longest  # in units of the longest gradient
        target = -ops.matmul(matrix, mean[:, None])[:, 0] * problem.active
        added = nonnegative_least_squares(matrix, target[None])[0]
        added = added * longest * problem.inverse_norms
        return (problem.present + added) / problem.num_present

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "regularization": self.regularization}
