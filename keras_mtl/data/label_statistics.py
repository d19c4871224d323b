"""Centre and spread of labels, in double precision, from arrays or streams."""

from collections.abc import Iterable

import numpy as np

# The interquartile range of a normal distribution, in standard deviations.
_NORMAL_INTERQUARTILE_RANGE = 1.3489795003921634


class RunningMoments:
    """Mean and standard deviation of the columns of arrays seen one at a time.

    The moments of a part are merged into those so far by the pairwise update of
    Chan, Golub and LeVeque (1983), around the first value of each column, so that
    neither size nor offset of the labels costs precision: a column of one value
    has a deviation of exactly zero.
    """

    def __init__(self, columns: int):
        self.count = np.zeros(columns)
        self._pivot = np.full(columns, np.nan)
        self._mean = np.zeros(columns)  # of the distance from the pivot
        self._squares = np.zeros(columns)

    def update(self, values: np.ndarray) -> None:
        """Adds rows `(n, columns)`; NaN is left out."""
        if len(values) == 0:
            return
        present = ~np.isnan(values)
        count = present.sum(axis=0)
        first = values[np.argmax(present, axis=0), np.arange(values.shape[1])]
        self._pivot = np.where(self.count > 0, self._pivot, first)
        distance = np.where(present, values - self._pivot, 0.0)
        mean = distance.sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(present, distance - mean, 0.0) ** 2).sum(axis=0)
        total = self.count + count
        step = np.where(count > 0, mean - self._mean, 0.0)
        share = count / np.maximum(total, 1)
        self._mean = self._mean + step * share
        self._squares = self._squares + squares + step**2 * self.count * share
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        """Mean of each column."""
        return self._pivot + self._mean

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation of each column (of the population)."""
        return np.sqrt(self._squares / np.maximum(self.count, 1))


def standardising(parts: Iterable[np.ndarray]):
    """Count, mean and standard deviation of the columns of all parts."""
    moments = _moments(parts)
    return moments.count, moments.mean, moments.deviation


def robust(parts: Iterable[np.ndarray]):
    """Count, median and interquartile range over 1.349 of the columns of all parts.

    All labels are held at once. Where half of them or more are the same, so that
    the range is zero, the standard deviation takes its place.
    """
    values = np.concatenate(list(parts))
    moments = _moments([values])
    known = moments.count > 0
    quartiles = np.full((3, values.shape[1]), np.nan)
    if known.any():
        quartiles[:, known] = np.nanquantile(
            values[:, known], [0.25, 0.5, 0.75], axis=0
        )
    spread = (quartiles[2] - quartiles[0]) / _NORMAL_INTERQUARTILE_RANGE
    return moments.count, quartiles[1], np.where(spread > 0, spread, moments.deviation)


def _moments(parts):
    moments = None
    for values in parts:
        if moments is None:
            moments = RunningMoments(values.shape[1])
        moments.update(values)
    return moments
