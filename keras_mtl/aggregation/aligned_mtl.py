"""Independent component alignment."""

from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianAggregator, GramianProblem

_RELATIVE_RANK = 1e-6


@keras.saving.register_keras_serializable("keras_mtl")
class AlignedMTL(GramianAggregator):
    """The mean of gradients made orthogonal and equally long.

    With $G = V \\Lambda V^\\top$, without the directions that are zero,

    $$ w = \\sqrt{\\lambda}\\, V \\Lambda^{-1/2} V^\\top \\frac{1}{T} $$

    which is the nearest system of principal components with a condition number of 1.

    Args:
        scale: Which lambda the components are scaled to: the least eigenvalue that is
            not zero (`"min"`), their median (`"median"`) or the square of the mean of
            their roots (`"rmse"`). Defaults to `"min"`.

    Raises:
        ValueError: If `scale` is unknown.

    Example:

    ```python
    jacobian = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    keras_mtl.aggregation.AlignedMTL()(jacobian)  # [0.2133, 0.9673, 0.9673]
    ```

    Reference:
        Senushkin et al., "Independent Component Alignment for Multi-Task Learning",
        CVPR 2023, https://arxiv.org/abs/2305.19000
    """

    def __init__(self, scale: str = "min", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if scale not in ("min", "median", "rmse"):
            raise ValueError(
                f"`scale` must be 'min', 'median' or 'rmse'. Received: scale={scale!r}"
            )
        self.scale = scale

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights."""
        size = problem.num_tasks
        longest = ops.max(problem.norms)
        norms = problem.norms / ops.where(longest > 0, longest, 1.0)
        gramian = norms[:, None] * problem.correlation * norms[None, :]
        values, vectors = ops.eigh(gramian)
        kept = values > _RELATIVE_RANK * size * ops.maximum(ops.max(values), 1e-30)
        roots = ops.sqrt(ops.where(kept, values, 1.0))
        inverse = ops.where(kept, 1.0 / roots, 0.0)
        mean = ops.matmul(ops.transpose(vectors), problem.mean_weights[:, None])[:, 0]
        aligned = ops.matmul(vectors, (inverse * mean)[:, None])[:, 0]
        return self._root_of_scale(roots, kept) * aligned

    def _root_of_scale(self, roots: Any, kept: Any) -> Any:
        counted = ops.cast(kept, "float32")
        rank = ops.sum(counted)
        if self.scale == "rmse":
            return ops.sum(counted * roots) / ops.maximum(rank, 1.0)
        size = roots.shape[0]
        positions = ops.arange(size, dtype="float32")  # eigenvalues ascend
        first = size - rank
        if self.scale == "min":
            places = [first]
        else:
            places = [
                first + ops.floor((rank - 1.0) / 2.0),
                first + ops.floor(rank / 2.0),
            ]
        at = [
            ops.sum(ops.where(ops.equal(positions, place), ops.square(roots), 0.0))
            for place in places
        ]
        return ops.sqrt(sum(at) / len(at))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "scale": self.scale}
