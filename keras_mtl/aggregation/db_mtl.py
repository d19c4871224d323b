"""Dual balancing of losses and gradients."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.jacobian import (
    along_rows,
    norms_of,
    present_rows,
    safe_inverse,
    weighted_rows,
)
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class DBMTL(Aggregator):
    """The sum of averaged gradients of log losses, all as long as the longest.

    $$ \\hat g_k \\leftarrow \\beta_t \\hat g_k + (1 - \\beta_t) \\nabla \\log L_k,
       \\qquad d = \\max_j |\\hat g_j| \\sum_k \\frac{\\hat g_k}{|\\hat g_k|} $$

    with $\\beta_t = \\beta / t^\\sigma$ at step t. It holds T gradients as state.
    Absent tasks keep their average and take no part.

    Args:
        beta: Float in [0, 1), the share of the old average. Defaults to `0.9`.
        decay: Float, not negative: sigma. Defaults to `0.0`.
        epsilon: Float, greater than 0, added to losses before they divide. Defaults
            to `1e-8`.

    Raises:
        ValueError: If an argument is out of range, or if there are no `losses`.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.DBMTL(beta=0.0)
    aggregator(np.array([[2.0, 0.0], [0.0, 8.0]]), np.array([1.0, 8.0]))  # [2.0, 2.0]
    ```

    Reference:
        Lin et al., "Dual-Balancing for Multi-Task Learning", 2023,
        https://arxiv.org/abs/2308.12029
    """

    needs_losses = True
    keeps_gradients = True

    def __init__(
        self,
        beta: float = 0.9,
        decay: float = 0.0,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.beta = check_number("beta", beta, at_least=0)
        if self.beta >= 1:
            raise ValueError(f"`beta` must be less than 1. Received: beta={beta!r}")
        self.decay = check_number("decay", decay, at_least=0)
        self.epsilon = check_number("epsilon", epsilon, above=0)

    def build_state(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Creates the averages and the counter of steps."""
        self.averages = [
            self.add_state(f"average_{index}", (self.num_tasks, *shape))
            for index, shape in enumerate(shapes)
        ]
        self.step = self.add_state("step", ())

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the balanced sums."""
        step = self.step + 1.0
        beta = self.beta * step**-self.decay
        inverse_losses = 1.0 / (losses + self.epsilon)
        averages = []
        for rows, average in zip(jacobians, self.averages, strict=True):
            old = ops.copy(ops.convert_to_tensor(average))
            new = beta * old + (1.0 - beta) * rows * along_rows(inverse_losses, rows)
            averages.append(ops.where(along_rows(present, rows) > 0, new, old))
        here = present_rows(averages, present)
        norms = norms_of(here)
        updates = weighted_rows(here, ops.max(norms) * safe_inverse(norms))
        if training:
            finite = ops.all(ops.isfinite(norms))
            for variable, value in zip(self.averages, averages, strict=True):
                variable.assign(ops.where(finite, value, variable.value))
            self.step.assign(ops.where(finite, step, self.step.value))
        return updates

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "beta": self.beta,
            "decay": self.decay,
            "epsilon": self.epsilon,
        }
