"""The mean of the gradients' projections on the dual cone."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.solvers.nonnegative_least_squares import (
    nonnegative_least_squares,
)
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class UPGrad(GramianAggregator):
    """The mean of the gradients, each projected on what conflicts with none.

    With the dual cone $\\mathcal C = \\{ d : J d \\ge 0 \\}$,

    $$ d = \\frac1T \\sum_i \\Pi_{\\mathcal C}(g_i), \\qquad
       \\Pi_{\\mathcal C}(g_i) = J^\\top \\arg\\min_{v \\ge e_i} v^\\top G v $$

    It conflicts with no task, is the mean where the gradients do not conflict, and is
    linear under scaling: a gradient half as long has half the share. Every projection
    is solved for unit gradients, whatever their lengths, so nothing about the update
    depends on how small the gradients have become.

    Args:
        regularization: Float, added to the squared norms of the unit gradients, which
            makes the problem well-posed where gradients are linearly dependent.
            Defaults to `1e-5`.

    Raises:
        ValueError: If `regularization` is not positive.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.UPGrad()(jacobian)  # [0.2925, 1.9006, 1.9006]
    ```

    Reference:
        Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", 2024,
        https://arxiv.org/abs/2406.16232
    """

    def __init__(self, regularization: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regularization = check_number("regularization", regularization, above=0)

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights, which are not negative."""
        matrix = problem.correlation_plus(self.regularization)
        # Row i: what is added to unit gradient i to project it.
        added = nonnegative_least_squares(matrix, -matrix)
        projected = ops.eye(problem.num_tasks) + added
        lengths = problem.norms[:, None] * projected * problem.inverse_norms[None, :]
        return ops.sum(lengths, axis=0) / problem.num_present

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "regularization": self.regularization}
