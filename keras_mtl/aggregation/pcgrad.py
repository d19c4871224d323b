"""Projecting conflicting gradients."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.task_orders import random_orders


@keras.saving.register_keras_serializable("keras_mtl")
class PCGrad(GramianAggregator):
    """The sum of the gradients, each freed of what conflicts with another.

    For each task i, with the other tasks j in random order,

    $$ \\tilde g_i \\leftarrow \\tilde g_i -
       \\frac{\\min(\\tilde g_i \\cdot g_j, 0)}{|g_j|^2} g_j, \\qquad
       d = \\sum_i \\tilde g_i $$

    With two tasks d conflicts with neither; with more it may. The order is drawn
    anew at every call.

    Args:
        seed: Integer, optional. Seed of the orders.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.PCGrad()(jacobian)  # [0.5848, 3.8012, 3.8012]
    ```

    Reference:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
        https://arxiv.org/abs/2001.06782
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights, 1 for a task without conflict."""
        # Row i: the projected gradient of task i in units of the unit gradients,
        # relative to its length.
        projected = ops.eye(problem.num_tasks)
        orders = random_orders(problem.num_tasks, self.seed_generator)
        for others in ops.unstack(orders, axis=0):
            product = ops.sum(projected * (others @ problem.correlation), axis=1)
            same = ops.diagonal(others)
            conflict = ops.where(same > 0, 0.0, ops.minimum(product, 0.0))
            projected = projected - conflict[:, None] * others
        lengths = problem.norms[:, None] * projected * problem.inverse_norms[None, :]
        return ops.where(problem.active > 0, ops.sum(lengths, axis=0), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "seed": self.seed}
