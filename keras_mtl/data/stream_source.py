"""The points of one task handed out by a `PyDataset` or a `tf.data.Dataset`."""

import threading

from keras_mtl.data.batch_stream import number_of_batches, one_pass
from keras_mtl.data.task_arrays import TaskArrays, concatenate


class StreamSource:
    """Reads rows in the stream's own order, and begins again when it ends.

    Only the batch being read is held in memory. Reading advances the stream:
    which rows a call gets depends on the calls before it.
    """

    def __init__(self, task: str, source, size: int | None = None):
        self._task = task
        self._source = source
        self._batches = self._endless_batches()
        self._lock = threading.Lock()
        self._batch = next(self._batches)
        self._read = 0
        self.template = self._batch.take(slice(0, 0))
        self.size = self._estimated_size() if size is None else size

    def take(self, start: int, count: int) -> TaskArrays:
        """The next `count` rows of the stream; `start` plays no part."""
        del start
        if count == 0:
            return self.template
        parts = []
        with self._lock:
            while count > 0:
                if self._read == self._batch.rows:
                    self._batch = next(self._batches)
                    self._read = 0
                part = self._batch.take(slice(self._read, self._read + count))
                parts.append(part)
                self._read += part.rows
                count -= part.rows
        return concatenate(parts)

    def _endless_batches(self):
        while True:
            rows = 0
            for data in one_pass(self._source):
                arrays = TaskArrays.from_data(self._task, data)
                rows += arrays.rows
                if arrays.rows:
                    yield arrays
            if rows == 0:
                raise ValueError(
                    f"Task '{self._task}' must have at least one point. "
                    f"Received: a {type(self._source).__name__} without any"
                )

    def _estimated_size(self):
        batches = number_of_batches(self._source)
        return None if batches is None else batches * self._batch.rows
