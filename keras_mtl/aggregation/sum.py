"""The sum of the gradients."""

from typing import Any

import keras

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem


@keras.saving.register_keras_serializable("keras_mtl")
class Sum(GramianAggregator):
    """The sum of the gradients of the present tasks: the gradient of the summed loss.

    $$ d = \\sum_k g_k $$

    Example:

    ```python
    keras_mtl.aggregation.Sum()(np.array([[1.0, 0.0], [3.0, 2.0]]))  # [4.0, 2.0]
    ```
    """

    def solve(self, problem: GramianProblem) -> Any:
        """Returns ones."""
        return problem.present
