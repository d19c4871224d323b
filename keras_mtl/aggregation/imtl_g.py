"""Gradient balance of impartial multi-task learning."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.solvers.pseudo_inverse import apply_pseudo_inverse

_CANCELLED = 1e-6


@keras.saving.register_keras_serializable("keras_mtl")
class IMTLG(GramianAggregator):
    """The update with the same projection on every unit gradient.

    $$ w \\propto G^+ \\sqrt{\\mathrm{diag}\\, G}, \\qquad
       \\Bigl| \\sum_k w_k \\Bigr| = 1 $$

    In units of unit gradients that is $C^+ 1$, so the direction of `ConFIG`. Weights
    may be negative. The paper divides by the sum of the weights, which turns the
    update round, so that every loss rises, where the sum is negative: seen with
    tasks that agree but differ in scale. Here it is divided by the absolute value.
    Where the sum vanishes against the weights, d is 0.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.IMTLG()(jacobian)  # [0.0767, 1.0, 1.0]
    ```

    Reference:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021,
        https://openreview.net/forum?id=IMPnRXEWpvr
    """

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights."""
        units = apply_pseudo_inverse(problem.correlation, problem.active)
        longest_inverse = ops.maximum(ops.max(problem.inverse_norms), 1e-30)
        weights = units * problem.inverse_norms / longest_inverse
        total = ops.abs(ops.sum(weights))
        cancelled = total <= _CANCELLED * ops.sum(ops.abs(weights))
        return ops.where(cancelled, 0.0, weights / ops.where(cancelled, 1.0, total))
