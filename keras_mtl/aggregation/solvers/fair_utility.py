"""The quadratic problem with a concave utility behind Nash-MTL and FairGrad."""

from typing import Any

import numpy as np
from keras import ops

_STEPS = 60
_HALVINGS = 12
_DECREMENT = 1e-12
_NEAR = 1e-4


def maximize_utility(matrix: Any, gains: Any, fairness: float) -> Any:
    """Solves $C a = b \\odot a^{-1/\\alpha}$ for positive a.

    That is where the convex function

    $$ \\tfrac12 a^\\top C a - \\sum_k b_k \\psi(a_k), \\qquad
       \\psi(x) = \\log x \\ (\\alpha = 1), \\quad
       \\frac{x^{1 - 1/\\alpha}}{1 - 1/\\alpha} \\ (\\text{else}) $$

    is smallest. Newton's method; of a row of step lengths, each half the one
    before, it takes the one with the smallest value.

    Args:
        matrix: C, positive definite `(T, T)`, with ones on its diagonal.
        gains: b, positive `(T,)`.
        fairness: alpha, greater than 0.

    Returns:
        a of shape `(T,)`.
    """
    power = 1.0 / fairness
    lengths = (0.5 ** np.arange(_HALVINGS)).astype("float32")

    def value(points):
        """Returns the function at points `(n, T)`."""
        quadratic = 0.5 * ops.sum(ops.matmul(points, matrix) * points, axis=1)
        if fairness == 1.0:
            utility = ops.log(points)
        else:
            utility = points ** (1.0 - power) / (1.0 - power)
        return quadratic - ops.sum(gains * utility, axis=1)

    def proceed(step, a, decrement):
        return decrement > _DECREMENT

    def newton(step, a, previous):
        marginal = gains * a ** (-power)
        gradient = ops.matmul(matrix, a[:, None])[:, 0] - marginal
        # In units of a itself: entries may differ by many orders of magnitude.
        hessian = a[:, None] * matrix * a[None, :]
        hessian = hessian + ops.diag(power * marginal * a)
        scale = 1.0 / ops.sqrt(ops.diagonal(hessian))
        system = hessian * scale[:, None] * scale[None, :]
        slope = gradient * a * scale
        move = -ops.solve(system, slope[:, None])[:, 0] * scale
        decrement = -ops.sum(gradient * a * move)
        # Never past nine tenths of the way to a zero entry.
        furthest = ops.minimum(1.0, 0.9 / ops.maximum(-ops.min(move), 1e-30))
        points = a * (1.0 + (furthest * lengths)[:, None] * move)
        utility = ops.maximum(ops.sum(marginal * a), 1e-30)
        decrement = decrement / utility
        # So near the minimum, values are all the same up to rounding.
        best = ops.where(decrement < _NEAR, 0, ops.argmin(value(points)))
        chosen = ops.cast(ops.equal(ops.arange(_HALVINGS), best), "float32")
        following = ops.sum(chosen[:, None] * points, axis=0)
        # In float32 it levels off: what no longer falls is as small as it gets.
        ended = ops.logical_and(decrement < _NEAR, decrement >= 0.5 * previous)
        return step + 1, following, ops.where(ended, 0.0, decrement)

    start = gains ** (1.0 / (1.0 + power))
    _, a, _ = ops.while_loop(
        proceed,
        newton,
        (np.int32(0), start, ops.convert_to_tensor(np.float32(1.0))),
        maximum_iterations=_STEPS,
    )
    return a
