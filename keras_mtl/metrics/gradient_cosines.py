"""Cosines of gradients, of their products."""

from typing import Any

from keras import ops


def gradient_cosines(gramian: Any, counted: Any) -> tuple[Any, Any, Any]:
    """Returns norms, the pairs that have a cosine, and the cosines.

    $$ |g_k| = \\sqrt{G_{kk}}, \\qquad
       \\cos(g_j, g_k) = \\frac{G_{jk}}{|g_j| |g_k|} $$

    A pair has a cosine if both tasks count and have gradients that are not zero.

    Args:
        gramian: Products of gradients `(..., T, T)`.
        counted: 1 for tasks that count, else 0, `(T,)`.

    Returns:
        Norms `(..., T)`; 1 for pairs that have a cosine, else 0, `(..., T, T)`; and
        cosines `(..., T, T)`, 0 for pairs that have none.
    """
    diagonal = ops.diagonal(gramian, axis1=-2, axis2=-1)
    norms = ops.sqrt(ops.maximum(diagonal, 0.0))
    there = counted * ops.cast(norms > 0, gramian.dtype)
    pairs = there[..., :, None] * there[..., None, :]
    inverse = ops.where(there > 0, 1.0 / ops.where(there > 0, norms, 1.0), 0.0)
    cosines = pairs * gramian * inverse[..., :, None] * inverse[..., None, :]
    return norms, pairs, ops.clip(cosines, -1.0, 1.0)
