"""Gradient sign dropout."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.jacobian import present_rows
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class GradDrop(Aggregator):
    """The sum of the gradients, in each coordinate of one sign only.

    In each coordinate the positive sign is kept with the probability

    $$ P = \\frac12 \\Bigl( 1 + \\frac{\\sum_k g_k}{\\sum_k |g_k|} \\Bigr), \\qquad
       d = \\sum_k \\bigl( \\ell + (1 - \\ell) M_k \\bigr) \\odot g_k $$

    with the mask $M_k$ of the coordinates of $g_k$ that have the sign that was kept.
    Where all gradients are 0, P is one half.

    Args:
        leak: Float in [0, 1], the share of each gradient that passes whatever its
            sign. Defaults to `0.0`.
        seed: Integer, optional. Seed of the signs.

    Raises:
        ValueError: If `leak` is out of range.

    Example:

    ```python
    jacobian = np.array([[1.0, 2.0], [3.0, 4.0]])
    keras_mtl.aggregation.GradDrop()(jacobian)  # [4.0, 6.0]: one sign, nothing dropped
    ```

    Reference:
        Chen et al., "Just Pick a Sign", NeurIPS 2020,
        https://arxiv.org/abs/2010.06808
    """

    def __init__(
        self, leak: float = 0.0, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.leak = check_number("leak", leak, at_least=0, at_most=1)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the sums of what was kept."""
        return [self._keep(rows) for rows in present_rows(jacobians, present)]

    def _keep(self, rows: Any) -> Any:
        total = ops.sum(rows, axis=0)
        size = ops.sum(ops.abs(rows), axis=0)
        # The quotient first: sums of tiny gradients must not vanish.
        purity = ops.where(size > 0, total / ops.where(size > 0, size, 1.0), 0.0)
        draw = keras.random.uniform(rows.shape[1:], seed=self.seed_generator)
        keeps_positive = 0.5 * (1.0 + purity) > draw
        kept = ops.where(keeps_positive, ops.maximum(rows, 0.0), ops.minimum(rows, 0.0))
        return ops.sum(self.leak * rows + (1.0 - self.leak) * kept, axis=0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "leak": self.leak, "seed": self.seed}
