"""The shortest vector among the weighted means of gradients."""

from typing import Any

from keras import ops

from keras_mtl.aggregation.gramian_aggregator import GramianProblem
from keras_mtl.aggregation.solvers.nonnegative_least_squares import (
    nonnegative_least_squares,
)

_REGULARIZATION = 1e-6


def shortest_mean(problem: GramianProblem) -> Any:
    """Returns the weights of the shortest mean.

    $$ \\min_{w \\ge 0,\\ 1^\\top w = 1} w^\\top G w $$

    With the weights $a_k = w_k |g_k|$ of unit gradients and $p_k = 1 / |g_k|$ that is,
    up to the scale of a, the problem without a constraint on the sum

    $$ \\min_{a \\ge 0} \\tfrac12 a^\\top C a - p^\\top a $$

    A present task whose gradient is zero takes all the weight.
    """
    longest_inverse = ops.maximum(ops.max(problem.inverse_norms), 1e-30)
    prices = problem.inverse_norms / longest_inverse
    units = nonnegative_least_squares(
        problem.correlation_plus(_REGULARIZATION), prices[None]
    )[0]
    weights = units * prices
    weights = weights / ops.maximum(ops.sum(weights), 1e-30)
    zero = problem.present * (1.0 - problem.active)
    count = ops.sum(zero)
    return ops.where(count > 0, zero / ops.maximum(count, 1.0), weights)
