"""Fair resource allocation between tasks."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.solvers.fair_utility import maximize_utility
from keras_mtl.argument_checks import check_number

_REGULARIZATION = 1e-5


@keras.saving.register_keras_serializable("keras_mtl")
class FairGrad(GramianAggregator):
    """The update that shares its progress alpha-fairly between the tasks.

    $$ d = J^\\top w \\quad \\text{with} \\quad G w = w^{-1/\\alpha},\\ w > 0 $$

    With alpha = 1 it has the direction of `NashMTL`; with a larger alpha it looks to
    the worst task, with a smaller one to the sum. A task whose gradient is zero is
    left out.

    Args:
        alpha: Float, greater than 0. Defaults to `1.0`; the authors run `2.0`.

    Raises:
        ValueError: If `alpha` is not positive.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.FairGrad()(jacobian)  # [0.0766, 0.9985, 0.9985]
    ```

    Reference:
        Ban, Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024,
        https://arxiv.org/abs/2402.15638
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = check_number("alpha", alpha, above=0)

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights, which are positive for gradients that are not zero."""
        # In lengths relative to a middle one, since the equation is not linear:
        # gradients c times as long have weights c^(-2 alpha / (alpha + 1)) as large.
        active = problem.active > 0
        logs = ops.where(active, ops.log(ops.where(active, problem.norms, 1.0)), 0.0)
        middle = ops.sum(logs) / ops.maximum(ops.sum(problem.active), 1.0)
        relative = ops.where(active, ops.exp(logs - middle), 1.0)
        gains = relative ** (1.0 / self.alpha - 1.0)
        units = maximize_utility(
            problem.correlation_plus(_REGULARIZATION), gains, self.alpha
        )
        scale = ops.exp(-2.0 * self.alpha / (self.alpha + 1.0) * middle)
        return scale * problem.active * units / relative

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "alpha": self.alpha}
