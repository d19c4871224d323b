"""Direction-oriented multi-objective learning."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import (
    GramianAggregator,
    GramianProblem,
    make_problem,
)
from keras_mtl.aggregation.shortest_mean import shortest_mean
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class SDMGrad(GramianAggregator):
    """The shortest vector among the means of gradients, held near the plain mean.

    $$ w = \\arg\\min_{w \\ge 0,\\ 1^\\top w = 1} |g_w + \\lambda g_0|^2, \\qquad
       d = \\frac{g_w + \\lambda g_0}{1 + \\lambda} $$

    With lambda = 0 it is `MGDA`, with a large lambda the mean. The paper takes a few
    stochastic gradient steps on w with the gradients of two further batches, which
    makes the estimate unbiased; here the problem of the batch at hand is solved.

    Args:
        regularization: Float, not negative: lambda. Defaults to `0.3`, as in the
            authors' runs.

    Raises:
        ValueError: If `regularization` is negative.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.SDMGrad()(jacobian)  # [0.0, 1.0, 1.0]
    ```

    Reference:
        Xiao, Ban, Ji, "Direction-oriented Multi-objective Learning: Simple and
        Provable Stochastic Algorithms", NeurIPS 2023, https://arxiv.org/abs/2305.18409
    """

    def __init__(self, regularization: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regularization = check_number("regularization", regularization, at_least=0)

    def solve(self, problem: GramianProblem) -> Any:
        """Returns weights that are not negative and sum to 1."""
        mean = problem.mean_weights
        longest = ops.max(problem.norms)
        norms = problem.norms / ops.where(longest > 0, longest, 1.0)
        gramian = norms[:, None] * problem.correlation * norms[None, :]
        # The weights sum to 1: it is the shortest mean of the sums g_k + lambda g_0.
        by_mean = self.regularization * ops.matmul(gramian, mean[:, None])
        square = self.regularization * ops.sum(mean[:, None] * by_mean)
        gramian = gramian + by_mean + ops.transpose(by_mean) + square
        pairs = problem.present[:, None] * problem.present[None, :]
        chosen = shortest_mean(
            make_problem(gramian * pairs, None, problem.present, problem.training)
        )
        return (chosen + self.regularization * mean) / (1.0 + self.regularization)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "regularization": self.regularization}
