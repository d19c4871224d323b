"""The points of one task held in arrays, visited in a seeded random order."""

import threading
from collections import OrderedDict

import numpy as np

from keras_mtl.data.task_arrays import TaskArrays

# Orders of this many points are drawn at once, so that a task of a few points
# does not cost one random generator for each of its passes.
_POINTS_PER_ORDER = 4096
_CACHED_ORDERS = 3


class ArraySource:
    """Visits the rows of arrays pass after pass, each pass a fresh permutation.

    The row at a position is a pure function of the seed and the position. Reading
    changes nothing, so that any number of threads may read in any order.
    """

    def __init__(self, arrays: TaskArrays, seed: int, task_index: int):
        self.arrays = arrays
        self.size = arrays.rows
        self.template = arrays.take(slice(0, 0))
        self._seed = seed
        self._task_index = task_index
        self._passes = max(1, _POINTS_PER_ORDER // self.size)
        self._orders = OrderedDict()
        self._lock = threading.Lock()

    def take(self, start: int, count: int) -> TaskArrays:
        """Rows `start` to `start + count` of the endless visiting order."""
        length = self._passes * self.size
        pieces = [np.empty(0, "int64")]
        while count > 0:
            block, offset = divmod(start, length)
            piece = self._order(block)[offset : offset + count]
            pieces.append(piece)
            start += len(piece)
            count -= len(piece)
        return self.arrays.take(np.concatenate(pieces))

    def _order(self, block):
        with self._lock:
            order = self._orders.get(block)
            if order is None:
                generator = np.random.default_rng(
                    np.random.SeedSequence(
                        self._seed, spawn_key=(1, self._task_index, block)
                    )
                )
                order = generator.permuted(
                    np.tile(np.arange(self.size), (self._passes, 1)), axis=1
                ).reshape(-1)
                self._orders[block] = order
                if len(self._orders) > _CACHED_ORDERS:
                    self._orders.popitem(last=False)
            return order

    def __getstate__(self):
        state = self.__dict__.copy()
        state["_lock"] = None
        state["_orders"] = OrderedDict()
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()
