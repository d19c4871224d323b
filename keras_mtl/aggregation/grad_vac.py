"""Gradient vaccine."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.task_orders import random_orders
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class GradVac(GramianAggregator):
    """The sum of the gradients, each turned towards its usual angle to the others.

    For each task i, with the other tasks j in random order, where the cosine
    $\\phi$ of $\\tilde g_i$ and $g_j$ is smaller than its running mean
    $\\hat\\phi_{ij}$,

    $$ \\tilde g_i \\leftarrow \\tilde g_i + \\frac{|\\tilde g_i|
       (\\hat\\phi \\sqrt{1 - \\phi^2} - \\phi \\sqrt{1 - \\hat\\phi^2})}
       {|g_j| \\sqrt{1 - \\hat\\phi^2}} g_j, \\qquad
       \\hat\\phi \\leftarrow (1 - \\beta) \\hat\\phi + \\beta \\phi $$

    The means start at 0, where it is `PCGrad`. They are kept for pairs of tasks that
    are both present with a gradient that is not zero.

    Args:
        beta: Float in (0, 1], how fast the means move. Defaults to `0.01`, as in the
            paper; other libraries take `0.5`.
        seed: Integer, optional. Seed of the orders.

    Raises:
        ValueError: If `beta` is out of range.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.GradVac()
    aggregator(np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))  # as PCGrad, at first
    ```

    Reference:
        Wang et al., "Gradient Vaccine", ICLR 2021, https://arxiv.org/abs/2010.05874
    """

    def __init__(
        self, beta: float = 0.01, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.beta = check_number("beta", beta, above=0, at_most=1)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build_state(self, shapes: Any) -> None:
        """Creates the running means of the cosines."""
        self.targets = self.add_state("targets", (self.num_tasks, self.num_tasks))

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights."""
        turned = ops.eye(problem.num_tasks)
        targets = ops.copy(ops.convert_to_tensor(self.targets))
        orders = random_orders(problem.num_tasks, self.seed_generator)
        for others in ops.unstack(orders, axis=0):
            products = turned @ problem.correlation
            length = ops.sqrt(ops.maximum(ops.sum(products * turned, axis=1), 0.0))
            product = ops.sum(products * others, axis=1)
            counted = problem.active * ops.sum(others * problem.active[None], axis=1)
            counted = (
                counted * (1.0 - ops.diagonal(others)) * ops.cast(length > 0, "float32")
            )
            cosine = product / ops.where(length > 0, length, 1.0)
            cosine = ops.clip(cosine, -1.0, 1.0)
            target = ops.clip(ops.sum(targets * others, axis=1), -0.9999, 0.9999)
            sine = ops.sqrt(1.0 - ops.square(target))
            turn = target * ops.sqrt(1.0 - ops.square(cosine)) - cosine * sine
            turn = ops.where(cosine < target, counted * length * turn / sine, 0.0)
            turned = turned + turn[:, None] * others
            change = self.beta * counted * (cosine - ops.sum(targets * others, axis=1))
            targets = targets + change[:, None] * others
        if problem.training:
            self.targets.assign(targets)
        lengths = problem.norms[:, None] * turned * problem.inverse_norms[None, :]
        return ops.where(problem.active > 0, ops.sum(lengths, axis=0), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "beta": self.beta, "seed": self.seed}
