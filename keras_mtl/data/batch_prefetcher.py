"""Threads that make the next batches while one is trained on."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class BatchPrefetcher:
    """Makes batches ahead, and hands them out as if they were made on demand.

    The enqueuer of Keras does not serve here: on JAX and PyTorch `fit` starts it to
    look at one batch, stops it, and then trains on what it had made by then before
    it begins anew, so that the first epoch sees batches twice and the last never.

    Args:
        make: Function of `(epoch, index)` that returns a batch.
        steps: Batches in an epoch.
        threads: Number of threads; one keeps the order of making.
        ahead: Largest number of batches made ahead.
    """

    def __init__(
        self,
        make: Callable[[int, int], tuple],
        steps: int,
        threads: int,
        ahead: int,
    ):
        self._make = make
        self._steps = steps
        self._threads = threads
        self._ahead = ahead
        self._last = (-1, -1)
        self._pending = {}
        self._start()

    def get(self, epoch: int, index: int) -> tuple:
        """The batch; those that follow are made ahead while batches come in order."""
        with self._lock:
            in_order = index == 0 or self._last == (epoch, index - 1)
            self._last = (epoch, index)
            end = min(index + 1 + self._ahead, self._steps) if in_order else index + 1
            made, self._pending = self._pending, {}
            for step in range(index, end):
                key = (epoch, step)
                self._pending[key] = made.get(key) or self._pool.submit(
                    self._make, *key
                )
            future = self._pending.pop((epoch, index))
        return future.result()

    def _start(self):
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(self._threads, "keras_mtl_mixture")

    def __getstate__(self):
        state = self.__dict__.copy()
        del state["_lock"], state["_pool"]
        state["_pending"] = {}
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._start()
