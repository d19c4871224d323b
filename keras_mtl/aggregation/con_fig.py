"""Conflict-free inverse gradients."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.solvers.pseudo_inverse import apply_pseudo_inverse


@keras.saving.register_keras_serializable("keras_mtl")
class ConFIG(GramianAggregator):
    """The direction at one angle to all gradients, as long as they reach along it.

    With the unit gradients as the rows of U,

    $$ \\hat u = \\frac{U^+ 1}{|U^+ 1|}, \\qquad
       d = \\Bigl( \\sum_k g_k \\cdot \\hat u \\Bigr) \\hat u $$

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.ConFIG()(jacobian)  # [0.1588, 2.0706, 2.0706]
    ```

    Reference:
        Liu, Chu, Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed
        Neural Networks", ICLR 2025, https://arxiv.org/abs/2408.11104
    """

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights."""
        units = apply_pseudo_inverse(problem.correlation, problem.active)
        cosines = ops.matmul(problem.correlation, units[:, None])[:, 0]
        square = ops.sum(units * cosines)
        length = ops.sum(problem.norms * cosines)
        scale = ops.where(square > 0, length / ops.where(square > 0, square, 1.0), 0.0)
        return scale * units * problem.inverse_norms
