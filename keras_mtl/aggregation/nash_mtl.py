"""Multi-task learning as a bargaining game."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.solvers.fair_utility import maximize_utility
from keras_mtl.argument_checks import check_number

_REGULARIZATION = 1e-5


@keras.saving.register_keras_serializable("keras_mtl")
class NashMTL(GramianAggregator):
    """The Nash bargaining solution between the tasks.

    $$ \\max_d \\sum_k \\log (g_k \\cdot d), \\qquad d = J^\\top w
       \\quad \\text{with} \\quad G w = 1 / w,\\ w > 0 $$

    The direction does not depend on the scale of any loss. Nor does the length: |d| is
    the square root of T wherever the gradients are not zero, also near a minimum. So
    the update is shortened to `max_norm`, and the learning rate alone says how far a
    step goes: let it decay. A task whose gradient is zero is left out.

    It is solved by Newton's method on the convex function
    $\\frac12 a^\\top C a - \\sum_k \\log a_k$ with $a_k = w_k |g_k|$.

    Args:
        max_norm: Float, the greatest length of d. Defaults to `1.0`.

    Raises:
        ValueError: If `max_norm` is not positive.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.NashMTL()(jacobian)  # [0.0542, 0.7061, 0.7061]
    ```

    Reference:
        Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
        https://arxiv.org/abs/2202.01017
    """

    def __init__(self, max_norm: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_norm = check_number("max_norm", max_norm, above=0)

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights, which are positive for gradients that are not zero."""
        units = maximize_utility(
            problem.correlation_plus(_REGULARIZATION),
            ops.ones((problem.num_tasks,)),
            1.0,
        )
        units = units * problem.active
        form = ops.matmul(problem.correlation, units[:, None])[:, 0]
        length = ops.sqrt(ops.maximum(ops.sum(units * form), 1e-12))
        shortened = ops.minimum(1.0, self.max_norm / length)
        return shortened * units * problem.inverse_norms

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "max_norm": self.max_norm}
