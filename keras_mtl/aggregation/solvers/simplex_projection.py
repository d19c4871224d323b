"""The nearest point of the simplex."""

from typing import Any

from keras import ops


def project_on_simplex(vector: Any, mask: Any) -> Any:
    """Returns the nearest vector whose entries are not negative and sum to 1.

    $$ \\Pi_\\Delta(v) = \\arg\\min_{w \\ge 0,\\ 1^\\top w = 1} |w - v|^2
       = \\max(v - \\theta, 0) $$

    The threshold is found from the sorted entries.

    Args:
        vector: Float tensor `(T,)`.
        mask: 1 for entries that take part and 0 for those that are to be 0.

    Reference:
        Held, Wolfe, Crowder, "Validation of subgradient optimization",
        Mathematical Programming 6, 1974, https://doi.org/10.1007/BF01580223
    """
    size = vector.shape[0]
    vector = ops.where(mask > 0, vector, -1e30)
    vector = vector - ops.max(vector)  # which changes nothing but the rounding
    ordered = ops.flip(ops.sort(vector))
    excess = ops.cumsum(ordered) - 1.0
    counts = ops.arange(1, size + 1, dtype="float32")
    above = ops.cast(ordered * counts > excess, "float32")
    count = ops.maximum(ops.sum(above), 1.0)
    last = ops.cast(ops.equal(counts, count), "float32")
    threshold = ops.sum(ops.where(last > 0, excess, 0.0)) / count
    return ops.maximum(vector - threshold, 0.0)
