"""Quadratic problems over vectors that are not negative."""

from typing import Any

import numpy as np
from keras import ops

_PATIENCE = 3
_TOLERANCE = 1e-6


def nonnegative_least_squares(matrix: Any, targets: Any, guess: Any = None) -> Any:
    """Minimises a quadratic over vectors that are not negative, exactly.

    $$ \\min_{x \\ge 0} \\tfrac12 x^\\top A x - b^\\top x $$

    Block principal pivoting: guess which entries are positive, solve for them, and
    exchange all entries that are on the wrong side; one at a time where that has not
    helped for a while, which ends in finitely many steps. It takes a handful of
    linear systems of size T, for many right-hand sides at once.

    Args:
        matrix: A, positive definite `(T, T)`.
        targets: b, `(n, T)`, for n problems.
        guess: A solution of a similar problem, whose positive entries are guessed
            first. Defaults to b.

    Returns:
        x of shape `(n, T)`.

    Reference:
        Kim, Park, "Fast nonnegative matrix factorization", SIAM Journal on
        Scientific Computing 33, 2011, https://doi.org/10.1137/110821172
    """
    size = matrix.shape[0]
    eye = ops.eye(size)
    positions = ops.arange(size)

    def solve(free):
        """Returns the solution with the other entries 0, and the gradient."""
        both = free[:, :, None] * free[:, None, :]
        system = both * matrix[None] + (1.0 - free)[:, :, None] * eye[None]
        x = ops.solve(system, (free * targets)[:, :, None])[:, :, 0] * free
        return x, ops.matmul(x, matrix) - targets

    def wrong_side(free, x, gradient):
        scale = ops.max(ops.abs(x), axis=1, keepdims=True)
        bound = ops.max(ops.abs(targets), axis=1, keepdims=True)
        negative = ops.logical_and(free > 0, x < -_TOLERANCE * scale)
        wanting = ops.logical_and(
            free < 1, gradient < -_TOLERANCE * ops.maximum(scale, bound)
        )
        return ops.cast(ops.logical_or(negative, wanting), "float32")

    def proceed(step, free, x, wrong, fewest, patience):
        return ops.any(wrong > 0)

    def exchange(step, free, x, wrong, fewest, patience):
        count = ops.sum(wrong, axis=1)
        better = count < fewest
        patience = ops.where(better, float(_PATIENCE), patience - 1.0)
        fewest = ops.minimum(count, fewest)
        # The last entry on the wrong side alone, where patience has run out.
        index = ops.max(ops.where(wrong > 0, positions[None], -1), axis=1)
        last = ops.cast(ops.equal(positions[None], index[:, None]), "float32")
        chosen = ops.where(patience[:, None] >= 0, wrong, last)
        free = ops.abs(free - chosen)
        x, gradient = solve(free)
        return step + 1, free, x, wrong_side(free, x, gradient), fewest, patience

    free = ops.cast((targets if guess is None else guess) > 0, "float32")
    x, gradient = solve(free)
    wrong = wrong_side(free, x, gradient)
    fewest = ops.full_like(x[:, 0], size + 1.0)
    patience = ops.full_like(x[:, 0], float(_PATIENCE))
    _, _, x, _, _, _ = ops.while_loop(
        proceed,
        exchange,
        (np.int32(0), free, x, wrong, fewest, patience),
        maximum_iterations=4 * size + 8,
    )
    return ops.maximum(x, 0.0)
