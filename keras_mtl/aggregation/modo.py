"""Multi-objective gradients with double sampling."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem
from keras_mtl.aggregation.solvers.simplex_projection import project_on_simplex
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class MoDo(GramianAggregator):
    """Weights that follow those of `MGDA` by one small step a batch.

    $$ w \\leftarrow \\Pi_\\Delta\\bigl( w - \\gamma (G + \\rho I) w \\bigr) $$

    The weights are state, so that they average over batches. The paper takes G as the
    products of the gradients of two independent batches; `gramian` may be such a
    matrix.

    Args:
        learning_rate: Float, greater than 0: gamma. Defaults to `0.001`.
        regularization: Float, not negative: rho. Defaults to `0.1`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.MoDo()
    aggregator.weights(np.diag([100.0, 1.0]))  # [0.4753, 0.5247]
    ```

    Reference:
        Chen et al., "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
        Generalization and Conflict-Avoidance", NeurIPS 2023,
        https://arxiv.org/abs/2305.20057
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        regularization: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.learning_rate = check_number("learning_rate", learning_rate, above=0)
        self.regularization = check_number("regularization", regularization, at_least=0)

    def build_state(self, shapes: Any) -> None:
        """Creates the weights, equal at first."""
        self.simplex_weights = self.add_state(
            "simplex_weights",
            (self.num_tasks,),
            keras.initializers.Constant(1.0 / self.num_tasks),
        )

    def solve(self, problem: GramianProblem) -> Any:
        """Returns weights that are not negative and sum to 1."""
        old = ops.copy(ops.convert_to_tensor(self.simplex_weights))
        weights = project_on_simplex(old, problem.present)
        slope = ops.matmul(problem.gramian, weights[:, None])[:, 0]
        slope = slope + self.regularization * weights
        weights = project_on_simplex(
            weights - self.learning_rate * slope, problem.present
        )
        if problem.training:
            # Absent tasks keep their share.
            absent = ops.sum(old * (1.0 - problem.present))
            moved = ops.where(problem.present > 0, (1.0 - absent) * weights, old)
            self.simplex_weights.assign(moved)
        return weights

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "regularization": self.regularization,
        }
