"""One vector for each class of a support."""

from typing import Any

from keras import ops


def class_means(labels: Any, x: Any) -> Any:
    """Returns the mean of the examples of each class, in float32.

    Args:
        labels: One-hot labels `(B, S, N)`, zero where no example is.
        x: Vectors `(B, S, D)`.

    Returns:
        Means `(B, N, D)`; zero of classes without examples.
    """
    labels = ops.cast(labels, "float32")
    sums = ops.matmul(ops.transpose(labels, (0, 2, 1)), ops.cast(x, "float32"))
    counts = ops.sum(labels, axis=1)[..., None]
    return sums / ops.maximum(counts, 1.0)
