"""Few tensors in place of one a task, where a compiled step is entered and left.

Each tensor that enters or leaves a step costs some microseconds, whatever its size:
slicing a batch off an array, feeding it, reading a number for the logs. With dozens
of tasks that is as much as a small network.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

_PREFIX = "<tasks> "
_FEWEST_TASKS = 4
_FEWEST_LOGS = 8
_LARGEST_LABEL = 64
"""Elements of a label above which copying all labels would cost more than it saves."""


def pack_arrays(
    labels: Mapping[str, Any], sample_weight: Mapping[str, Any] | None
) -> tuple[Any, Any] | None:
    """Stacks labels and weights by task along axis 1.

    Returns:
        Labels and weights as dicts of one array, whose key names the tasks; or None
        where the arrays of tasks differ in shape or dtype, or it would not pay.
    """
    groups = [labels] if sample_weight is None else [labels, sample_weight]
    if len(labels) < _FEWEST_TASKS or not all(map(_alike, groups)):
        return None
    names = list(labels)
    key = _PREFIX + json.dumps(names)
    packed = [{key: np.stack([group[n] for n in names], axis=1)} for group in groups]
    return packed[0], packed[1] if len(packed) > 1 else None


def is_packed(labels: Any) -> bool:
    """Whether labels are what `pack_arrays` made."""
    return (
        isinstance(labels, Mapping)
        and len(labels) == 1
        and str(next(iter(labels))).startswith(_PREFIX)
    )


def unpack_batch(data: Any) -> Any:
    """Returns a batch `(x, y, ...)` with labels and weights as dicts by task again."""
    if not isinstance(data, tuple | list) or len(data) < 2 or not is_packed(data[1]):
        return data
    return (data[0], *(_unpack(part) for part in data[1:]))


def _unpack(part: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if part is None:
        return None
    ((key, stacked),) = part.items()
    names = json.loads(key.removeprefix(_PREFIX))
    stacked = ops.convert_to_tensor(stacked)
    return dict(zip(names, ops.unstack(stacked, len(names), axis=1), strict=True))


def _alike(arrays: Mapping[str, Any]) -> bool:
    arrays = list(arrays.values())
    if not all(type(array) is np.ndarray and array.ndim for array in arrays):
        return False
    kinds = {(array.shape, array.dtype) for array in arrays}
    return len(kinds) == 1 and np.prod(arrays[0].shape[1:]) <= _LARGEST_LABEL


def pack_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns logs with their numbers in one vector, for `unpack_logs`."""
    packed = dict(logs)
    numbers = {name: packed.pop(name) for name in logs if _is_number(logs[name])}
    if len(numbers) < _FEWEST_LOGS:
        return dict(logs)
    packed[_PREFIX + json.dumps(list(numbers))] = ops.stack([*numbers.values()])
    return packed


def unpack_logs(
    logs: Mapping[str, Any], split: Callable[[Any], list[Any]]
) -> dict[str, Any]:
    """Returns logs with a number for each entry of the vector in it.

    Args:
        logs: What `pack_logs` made.
        split: Returns the numbers of a vector.
    """
    unpacked = {}
    for name, value in logs.items():
        if name.startswith(_PREFIX):
            names = json.loads(name.removeprefix(_PREFIX))
            unpacked.update(zip(names, split(value), strict=True))
        else:
            unpacked[name] = value
    return unpacked


def _is_number(value: Any) -> bool:
    if not ops.is_tensor(value) or value.shape != ():
        return False
    return keras.backend.standardize_dtype(value.dtype) == "float32"


@contextlib.contextmanager
def exchanged(model: Any, method: str, function: Callable[..., Any]) -> Iterator[None]:
    """Lets Keras find another function where it takes a step of the model."""
    object.__setattr__(model, method, function)
    try:
        yield
    finally:
        object.__delattr__(model, method)


class PackedFunctions:
    """Makes Keras's functions of steps with fewer tensors going in and out.

    A backend's `TrainStep` says how: `_packing(step)` returns a step on packed batches
    with packed logs, `_unpacking(function)` a function that takes them apart again.
    """

    def make_train_function(self, force: bool = False) -> None:
        """Makes the function of a training step, as Keras."""
        if self.train_function is None or force:
            with exchanged(self, "train_step", self._packing(self.train_step)):
                super().make_train_function(force)
            self.train_function = self._unpacking(self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        """Makes the function of an evaluation step, as Keras."""
        if self.test_function is None or force:
            with exchanged(self, "test_step", self._packing(self.test_step)):
                super().make_test_function(force)
            self.test_function = self._unpacking(self.test_function)
