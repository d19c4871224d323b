"""The mean of the gradients."""

from typing import Any

import keras

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem


@keras.saving.register_keras_serializable("keras_mtl")
class Mean(GramianAggregator):
    """The mean of the gradients of the present tasks.

    $$ d = \\frac1T \\sum_k g_k $$

    Example:

    ```python
    keras_mtl.aggregation.Mean()(np.array([[1.0, 0.0], [3.0, 2.0]]))  # [2.0, 1.0]
    ```
    """

    def solve(self, problem: GramianProblem) -> Any:
        """Returns equal weights that sum to 1."""
        return problem.mean_weights
