"""Multi-objective gradients with corrected bias."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.jacobian import (
    along_rows,
    gramian_of,
    present_rows,
    weighted_rows,
)
from keras_mtl.aggregation.solvers.simplex_projection import project_on_simplex
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class MoCo(Aggregator):
    """Weights that follow those of `MGDA`, of gradients averaged over batches.

    $$ Y \\leftarrow Y - \\beta_t (Y - J), \\qquad
       w \\leftarrow \\Pi_\\Delta\\bigl( w - \\gamma_t (Y Y^\\top + \\rho I) w \\bigr),
       \\qquad d = Y^\\top w $$

    with $\\beta_t = \\beta / t^\\sigma$ and $\\gamma_t = \\gamma / t^\\sigma$ at step
    t. It holds T gradients as state. Absent tasks keep their average and their weight.

    Args:
        beta: Float in (0, 1], how fast the averages move. Defaults to `0.5`.
        learning_rate: Float, greater than 0: gamma. Defaults to `0.1`.
        decay: Float, not negative: sigma. Defaults to `0.5`.
        regularization: Float, not negative: rho. Defaults to `0.0`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.MoCo()
    aggregator(np.array([[2.0, 0.0], [0.0, 2.0]]))  # [0.5, 0.5]
    ```

    Reference:
        Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning",
        ICLR 2023, https://openreview.net/forum?id=dLAYGdKTi2
    """

    keeps_gradients = True

    def __init__(
        self,
        beta: float = 0.5,
        learning_rate: float = 0.1,
        decay: float = 0.5,
        regularization: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.beta = check_number("beta", beta, above=0, at_most=1)
        self.learning_rate = check_number("learning_rate", learning_rate, above=0)
        self.decay = check_number("decay", decay, at_least=0)
        self.regularization = check_number("regularization", regularization, at_least=0)

    def build_state(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Creates the averages, the weights and the counter of steps."""
        self.averages = [
            self.add_state(f"average_{index}", (self.num_tasks, *shape))
            for index, shape in enumerate(shapes)
        ]
        self.simplex_weights = self.add_state(
            "simplex_weights",
            (self.num_tasks,),
            keras.initializers.Constant(1.0 / self.num_tasks),
        )
        self.step = self.add_state("step", ())

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the weighted sums of the averages."""
        step = self.step + 1.0
        damping = step**-self.decay
        averages = []
        for rows, average in zip(jacobians, self.averages, strict=True):
            old = ops.copy(ops.convert_to_tensor(average))
            here = along_rows(present, rows) > 0
            new = old - self.beta * damping * (old - rows)
            averages.append(ops.where(here, new, old))
        old = ops.copy(ops.convert_to_tensor(self.simplex_weights))
        gramian = gramian_of(present_rows(averages, present))
        weights = project_on_simplex(old, present)
        slope = ops.matmul(gramian, weights[:, None])[:, 0]
        slope = slope + self.regularization * weights
        weights = project_on_simplex(
            weights - self.learning_rate * damping * slope, present
        )
        updates = weighted_rows(present_rows(averages, present), weights)
        if training:
            absent = ops.sum(old * (1.0 - present))
            moved = ops.where(present > 0, (1.0 - absent) * weights, old)
            finite = ops.all(ops.isfinite(moved))
            self.simplex_weights.assign(ops.where(finite, moved, old))
            for variable, value in zip(self.averages, averages, strict=True):
                variable.assign(ops.where(finite, value, variable.value))
            self.step.assign(ops.where(finite, step, self.step.value))
        return updates

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "beta": self.beta,
            "learning_rate": self.learning_rate,
            "decay": self.decay,
            "regularization": self.regularization,
        }
