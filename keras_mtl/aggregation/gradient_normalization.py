"""Gradients brought to one scale before a method sees them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.aggregator_wrapper import AggregatorWrapper
from keras_mtl.aggregation.gramian_aggregator import GramianProblem
from keras_mtl.aggregation.jacobian import along_rows, norms_of, safe_inverse

_MODES = ("l2", "loss", "loss+")


@keras.saving.register_keras_serializable("keras_mtl")
class GradientNormalization(AggregatorWrapper):
    """Any aggregator, on gradients divided by their length, first loss, or both.

    $$ d = \\mathcal A(D J), \\qquad D_{kk} = \\frac{1}{|g_k|}, \\quad
       \\frac{1}{L_k(0)} \\quad \\text{or} \\quad \\frac{1}{L_k(0)\\, |g_k|} $$

    The update is made of the normalised gradients.

    Args:
        aggregator: The aggregator, or its name.
        mode: `"l2"`, `"loss"` or `"loss+"` for the three. Defaults to `"l2"`.

    Raises:
        ValueError: If `mode` is unknown, or if there are no `losses` where it takes
            them.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.GradientNormalization("mgda", "l2")
    aggregator(np.array([[2.0, 0.0], [0.0, 8.0]]))  # [0.5, 0.5]
    ```

    Reference:
        Sener, Koltun, "Multi-Task Learning as Multi-Objective Optimization",
        NeurIPS 2018, https://arxiv.org/abs/1810.04650
    """

    def __init__(
        self, aggregator: str | Aggregator, mode: str = "l2", **kwargs: Any
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"`mode` must be one of {_MODES}. Received: mode={mode!r}")
        self.mode = mode
        super().__init__(aggregator, **kwargs)

    @property
    def needs_losses(self) -> bool:
        """Whether `losses` must be given."""
        return self.mode != "l2" or self.aggregator.needs_losses

    def build_state(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Creates the first losses."""
        super().build_state(shapes)
        if self.mode != "l2":
            self.first_losses = self.add_state("first_losses", (self.num_tasks,))

    def _scales(self, norms: Any, losses: Any, present: Any, training: bool) -> Any:
        scales = ops.ones_like(norms)
        if self.mode != "loss":
            scales = safe_inverse(norms)
        if self.mode != "l2":
            first = ops.copy(ops.convert_to_tensor(self.first_losses))
            fresh = ops.logical_and(first == 0, present > 0)
            first = ops.where(fresh, losses, first)
            if training:
                kept = ops.where(ops.isfinite(first), first, self.first_losses.value)
                self.first_losses.assign(kept)
            scales = scales * safe_inverse(first)
        return scales

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights of the gradients as they are."""
        scales = self._scales(
            problem.norms, problem.losses, problem.present, problem.training
        )
        gramian = scales[:, None] * problem.gramian * scales[None, :]
        weights = self.aggregator.task_weights(
            gramian, problem.losses, problem.present, problem.training
        )
        return weights * scales

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the update of the normalised gradients."""
        if self.is_gramian:
            return super().combine(jacobians, losses, present, training)
        scales = self._scales(norms_of(jacobians), losses, present, training)
        scaled = [rows * along_rows(scales, rows) for rows in jacobians]
        return self.aggregator.combine(scaled, losses, present, training)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "mode": self.mode}
