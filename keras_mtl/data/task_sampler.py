"""How many rows of each task every batch of an epoch gets."""

import threading
from collections import OrderedDict

import numpy as np

_CACHED_EPOCHS = 2


class TaskSampler:
    """Draws the number of rows of each task, for all batches of an epoch at once.

    A batch has `slots`; a task with probability `p` gets `floor(slots * p)` or
    `ceil(slots * p)` of them, `slots * p` in expectation (systematic sampling
    over the tasks in a random order). Without `tasks_per_batch` a slot is a row.
    With it there are `tasks_per_batch` slots, over which the rows are spread
    evenly in the same way.

    Everything is a pure function of `(seed, epoch)`.

    Args:
        probabilities: Array `(T,)`, sums to one.
        rows: Rows in a batch.
        steps: Batches in an epoch.
        seed: Non-negative integer.
        tasks_per_batch: Slots, or `None` for one slot a row.
        rows_when_present: Array `(T,)`: a task that has any slot gets exactly so
            many rows, whatever its slots. `None` for rows that follow the slots.
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        rows: int,
        steps: int,
        seed: int,
        tasks_per_batch: int | None = None,
        rows_when_present: np.ndarray | None = None,
    ):
        self._probabilities = probabilities
        self._rows = rows
        self._steps = steps
        self._seed = seed
        self._tasks_per_batch = tasks_per_batch
        self._rows_when_present = rows_when_present
        self._plans = OrderedDict()
        self._first_positions = [np.zeros(len(probabilities), "int64")]
        self._lock = threading.Lock()

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each task's rows of that batch begin, and how many they are.

        The beginning is the number of rows of the task in all batches before.
        """
        positions, counts = self._plan(epoch)
        return positions[step], counts[step]

    def _plan(self, epoch):
        with self._lock:
            if epoch not in self._plans:
                while len(self._first_positions) <= epoch:
                    earlier = len(self._first_positions) - 1
                    self._first_positions.append(
                        self._first_positions[-1] + self._counts(earlier).sum(axis=0)
                    )
                counts = self._counts(epoch)  # (steps, T)
                before = np.cumsum(counts, axis=0) - counts
                self._plans[epoch] = (self._first_positions[epoch] + before, counts)
                if len(self._plans) > _CACHED_EPOCHS:
                    self._plans.popitem(last=False)
            return self._plans[epoch]

    def _counts(self, epoch):
        generator = np.random.default_rng(
            np.random.SeedSequence(self._seed, spawn_key=(0, epoch))
        )
        shape = (self._steps, len(self._probabilities))
        order = generator.random(shape).argsort(axis=1)
        slots = self._rows if self._tasks_per_batch is None else self._tasks_per_batch
        shuffled = systematic_counts(
            self._probabilities[order] * slots, generator.random((self._steps, 1))
        )
        if self._rows_when_present is not None:
            shuffled = (shuffled > 0) * self._rows_when_present[order]
        elif self._tasks_per_batch is not None:
            shuffled = systematic_counts(
                shuffled * (self._rows / slots), generator.random((self._steps, 1))
            )
        counts = np.empty(shape, "int64")
        np.put_along_axis(counts, order, shuffled, axis=1)
        return counts

    def __getstate__(self):
        state = self.__dict__.copy()
        state["_lock"] = None
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()


def systematic_counts(expected: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Rounds each row of `expected` up or down so that its sum is kept.

    $$n_j = \\lfloor C_j + u \\rfloor - \\lfloor C_{j-1} + u \\rfloor,
    \\quad C_j = \\sum_{i \\le j} e_i$$

    With `u` uniform on [0, 1) the mean of `n_j` is `e_j`.

    Args:
        expected: Array `(steps, T)`, not negative, each row with an integer sum.
        offset: Array `(steps, 1)`, the `u` of each row.
    """
    # Sums of fractions such as 10 * 0.1 must come out as the integers they are, and
    # an offset just below one must not lift the last above its integer.
    sums = np.round(np.cumsum(expected, axis=1), 9)
    ends = np.minimum(np.floor(sums + offset), np.round(sums[:, -1:]))
    return np.diff(ends, axis=1, prepend=0.0).astype("int64")


def largest_remainder(expected: np.ndarray) -> np.ndarray:
    """Rounds positive numbers of integer sum to integers of that sum, none zero.

    Each gets its floor, or one where that is zero. What is missing goes to the
    largest remainders; what the ones took too much comes off the others.
    """
    counts = np.maximum(np.floor(np.round(expected, 9)), 1).astype("int64")
    missing = round(float(expected.sum())) - int(counts.sum())
    for position in np.argsort(counts - expected, kind="stable")[: max(missing, 0)]:
        counts[position] += 1
    for _ in range(-missing):
        counts[np.argmax(np.where(counts > 1, counts - expected, -np.inf))] -= 1
    return counts
