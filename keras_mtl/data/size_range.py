"""A size that is fixed, or drawn from a range in few shapes."""

from typing import Any

import numpy as np

from keras_mtl.argument_checks import check_count


class SizeRange:
    """Whole numbers from `low` to `high`, parted in a few intervals.

    A batch draws an interval, and is as large as its end; each of its episodes draws a
    number of it. So a compiled step meets few shapes, and every number of the range
    is as probable as any other.

    Args:
        name: Name of the argument, for messages.
        value: An integer, or a pair of the least and the greatest.
        shapes: Number of intervals, or fewer where the range is shorter.

    Raises:
        ValueError: If it is no positive integer, and no pair of them in order.
    """

    def __init__(self, name: str, value: Any, shapes: int) -> None:
        pair = value if isinstance(value, list | tuple) else (value, value)
        if len(pair) != 2:
            raise ValueError(
                f"`{name}` must be an integer, or a pair of the least and the greatest."
                f" Received: {name}={value!r}"
            )
        self.low, self.high = (check_count(name, size) for size in pair)
        if self.low > self.high:
            raise ValueError(
                f"`{name}` must have its least number first. Received: {name}={value!r}"
            )
        every = np.arange(self.low, self.high + 1)
        self._intervals = np.array_split(every, min(shapes, len(every)))
        self._ends = np.cumsum([len(i) for i in self._intervals]) / len(every)

    @property
    def fixed(self) -> bool:
        """Whether there is one number."""
        return self.low == self.high

    def interval(self, noise: float) -> tuple[int, int]:
        """Returns the least and the greatest number of an interval, by its noise."""
        index = int(np.searchsorted(self._ends, noise, side="right"))
        chosen = self._intervals[min(index, len(self._intervals) - 1)]
        return int(chosen[0]), int(chosen[-1])


def shape_noise(index: int, noise: np.ndarray) -> np.ndarray:
    """Returns the noise that the intervals of a batch are drawn with.

    Batch 0 is of the first intervals and batch 1 of the last: of these two TensorFlow
    reads which axes vary, and refuses a later batch that differs in others.

    Args:
        index: Integer, which batch.
        noise: Numbers between 0 and 1.
    """
    if index > 1:
        return noise
    return np.full_like(noise, 0.0 if index == 0 else 1.0)


def draw_from(interval: tuple[int, int], noise: np.ndarray) -> np.ndarray:
    """Returns whole numbers of an interval, one for each number of the noise."""
    low, high = interval
    return low + (noise * (high - low + 1)).astype("int64")
