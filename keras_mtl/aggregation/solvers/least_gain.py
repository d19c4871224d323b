"""The best change of a given length for the task that gains least."""

from typing import Any

import numpy as np
from keras import ops

from keras_mtl.aggregation.jacobian import safe_inverse
from keras_mtl.aggregation.solvers.nonnegative_least_squares import (
    nonnegative_least_squares,
)

_STEPS = 20
_TOLERANCE = 1e-6


def raise_least_gain(correlation: Any, norms: Any, gains: Any, radius: Any) -> Any:
    """Maximises the least gain of a task over changes of a given length.

    $$ \\max_{|r| \\le \\rho} \\min_k s_k (b_k + u_k \\cdot r) $$

    with unit vectors u. For a least gain of t, the shortest change is $r = U^\\top a$
    with

    $$ a(t) = \\arg\\min_{a \\ge 0} \\tfrac12 a^\\top C a - (t / s - b)^\\top a $$

    whose length n(t) is convex and grows with t at the rate
    $\\sum_k a_k / s_k / n$: Newton's method from a t that is too large comes down to
    $n(t) = \\rho$ without ever passing it.

    Args:
        correlation: C, the products of the unit vectors, positive definite `(T, T)`.
        norms: s `(T,)`; a task with 0 has no say.
        gains: b, the gains per unit of s without the change `(T,)`.
        radius: rho, a scalar tensor.

    Returns:
        a of shape `(T,)`.
    """
    inverse = safe_inverse(norms)
    say = norms > 0

    def shortest(least, guess):
        targets = ops.where(say, least * inverse - gains, 0.0)
        units = nonnegative_least_squares(correlation, targets[None], guess[None])[0]
        form = ops.sum(units * ops.matmul(correlation, units[:, None])[:, 0])
        return units, ops.sqrt(ops.maximum(form, 0.0))

    def proceed(step, least, units, length):
        return length > radius * (1.0 + _TOLERANCE)

    def newton(step, least, units, length):
        rate = ops.sum(units * inverse) / length
        least = least - (length - radius) / ops.where(rate > 0, rate, 1.0)
        units, length = shortest(least, units)
        return step + 1, least, units, length

    most = ops.where(say, norms * (gains + radius), np.float32(3e38))
    least = ops.min(most)
    units, length = shortest(least, ops.ones_like(norms))
    _, _, units, length = ops.while_loop(
        proceed,
        newton,
        (np.int32(0), least, units, length),
        maximum_iterations=_STEPS,
    )
    return units * radius / ops.where(length > 0, length, 1.0)
