"""Conflict-averse gradient descent."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.jacobian import safe_inverse
from keras_mtl.aggregation.solvers.least_gain import raise_least_gain
from keras_mtl.argument_checks import check_number

_REGULARIZATION = 1e-6


@keras.saving.register_keras_serializable("keras_mtl")
class CAGrad(GramianAggregator):
    """The update near the mean gradient that serves the worst task best.

    $$ \\max_d \\min_k g_k \\cdot d \\quad \\text{s.t.} \\quad
       |d - g_0| \\le c |g_0|, \\qquad g_0 = \\frac1T \\sum_k g_k $$

    which is $d = g_0 + c |g_0| \\, g_w / |g_w|$ with $g_w = J^\\top w$ and

    $$ w = \\arg\\min_{w \\ge 0,\\ 1^\\top w = 1} g_w \\cdot g_0 + c |g_0| |g_w| $$

    With c = 0 it is the mean; with growing c it turns to the direction of `MGDA`.

    Args:
        c: Float, not negative. Radius of the ball, in lengths of the mean gradient.
            Defaults to `0.4`.
        rescale: What the update is divided by: `"square"`, $1 + c^2$; `"linear"`,
            1 + c; or `None`, 1. Defaults to `"square"`, as in the authors' runs.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    aggregator = keras_mtl.aggregation.CAGrad(c=0.5, rescale=None)
    aggregator(jacobian)  # [0.1835, 1.2041, 1.2041]
    ```

    Reference:
        Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
        NeurIPS 2021, https://arxiv.org/abs/2110.14048
    """

    def __init__(
        self, c: float = 0.4, rescale: str | None = "square", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.c = check_number("c", c, at_least=0)
        if rescale not in ("square", "linear", None):
            raise ValueError(
                "`rescale` must be 'square', 'linear' or None. "
                f"Received: rescale={rescale!r}"
            )
        self.rescale = rescale

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights, which are not negative."""
        mean = problem.mean_weights
        if self.c == 0:
            return mean
        # Lengths relative to the longest gradient.
        longest = ops.max(problem.norms)
        norms = problem.norms / ops.where(longest > 0, longest, 1.0)
        by_mean = ops.matmul(problem.correlation, (norms * mean)[:, None])[:, 0]
        radius = self.c * ops.sqrt(ops.maximum(ops.sum(norms * mean * by_mean), 0.0))
        units = raise_least_gain(
            problem.correlation_plus(_REGULARIZATION), norms, by_mean, radius
        )
        weights = mean + units * safe_inverse(norms)
        return weights / self._divisor()

    def _divisor(self) -> float:
        if self.rescale == "square":
            return 1.0 + self.c**2
        return 1.0 + self.c if self.rescale == "linear" else 1.0

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "c": self.c, "rescale": self.rescale}
