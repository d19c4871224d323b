"""Draws without replacement, many at once."""

import numpy as np

_SPARSE = 8
"""From so many times as many numbers as are drawn on, doubles are few."""


def distinct_width(least: int, most: int, count: int) -> int:
    """Returns how much noise a draw needs.

    Args:
        least: The smallest number of things to draw from.
        most: The largest.
        count: How many are drawn.
    """
    return 2 * count + 16 if least >= _SPARSE * count else most


def draw_distinct(
    noise: np.ndarray, sizes: np.ndarray, count: int, least: int
) -> np.ndarray:
    """Draws different integers in random order, each below a size.

    From few it sorts noise. From many it takes the first that differ of some draws
    with replacement: the same distribution, whatever the number to draw from.

    Args:
        noise: Uniform numbers `(..., w)` with w of `distinct_width`.
        sizes: Integers `(...)`, how many there are to draw from.
        count: How many are drawn.
        least: The smallest of all sizes, as given to `distinct_width`.

    Returns:
        Integers `(..., count)`.
    """
    sizes = np.asarray(sizes)[..., None]
    if least < _SPARSE * count:
        places = np.arange(noise.shape[-1])
        keys = np.where(places < sizes, noise, 2.0)
        return np.argsort(keys, axis=-1, kind="stable")[..., :count]
    drawn = (noise * sizes).astype("int64")
    order = np.argsort(drawn, axis=-1, kind="stable")
    in_order = np.take_along_axis(drawn, order, axis=-1)
    double = np.zeros(drawn.shape, bool)
    np.put_along_axis(
        double, order[..., 1:], in_order[..., 1:] == in_order[..., :-1], axis=-1
    )
    # The first that differ come first, in the order of the draws.
    chosen = np.argsort(double, axis=-1, kind="stable")[..., :count]
    found = np.take_along_axis(drawn, chosen, axis=-1)
    short = np.take_along_axis(double, chosen, axis=-1).any(axis=-1)
    for place in np.argwhere(short):
        # As good as never: doubles are an eighth of the draws, and half may be.
        row = drawn[tuple(place)]
        kept = row[np.sort(np.unique(row, return_index=True)[1])][:count]
        rest = np.setdiff1d(np.arange(2 * count), kept)
        found[tuple(place)] = np.concatenate([kept, rest])[:count]
    return found
