"""The multiple-gradient descent algorithm."""

from typing import Any

import keras

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.shortest_mean import shortest_mean


@keras.saving.register_keras_serializable("keras_mtl")
class MGDA(GramianAggregator):
    """The shortest vector among the weighted means of the gradients.

    $$ w = \\arg\\min_{w \\ge 0,\\ 1^\\top w = 1} |J^\\top w|^2 $$

    Either d is 0, and no direction lowers all losses, or every loss falls along
    -d at the same rate, those of tasks of weight 0 faster. Tasks with long
    gradients get small weights, so the task that converges first decides; see
    `GradientNormalization`.

    It is solved exactly, for any T. A present task whose gradient is zero takes all
    the weight: the point is stationary.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.MGDA()(jacobian)  # [0.0, 1.0, 1.0]
    ```

    Reference:
        Sener, Koltun, "Multi-Task Learning as Multi-Objective Optimization",
        NeurIPS 2018, https://arxiv.org/abs/1810.04650; Desideri, "Multiple-gradient
        descent algorithm", Comptes Rendus Mathematique 350, 2012,
        https://doi.org/10.1016/j.crma.2012.03.014
    """

    def solve(self, problem: GramianProblem) -> Any:
        """Returns weights that are not negative and sum to 1."""
        return shortest_mean(problem)
