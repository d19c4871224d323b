"""Sources that hand out batches one after the other: `PyDataset`, `tf.data`."""

import itertools
import sys
from collections.abc import Iterator

import keras


def is_tf_dataset(source) -> bool:
    """Whether `source` is a `tf.data.Dataset`, without importing TensorFlow.

    An object can only be one if somebody has imported TensorFlow before.
    """
    tensorflow = sys.modules.get("tensorflow")
    dataset_class = getattr(getattr(tensorflow, "data", None), "Dataset", None)
    return dataset_class is not None and isinstance(source, dataset_class)


def is_batch_stream(source) -> bool:
    """Whether `source` is a `keras.utils.PyDataset` or a `tf.data.Dataset`."""
    return isinstance(source, keras.utils.PyDataset) or is_tf_dataset(source)


def one_pass(source) -> Iterator:
    """Yields the batches of one pass over a `PyDataset` or `tf.data.Dataset`.

    A `PyDataset` is told when its epoch begins and ends, as Keras's trainer does.
    """
    if is_tf_dataset(source):
        yield from source.as_numpy_iterator()
        return
    number = source.num_batches
    source.on_epoch_begin()
    for index in itertools.count() if number is None else range(number):
        yield source[index]
    source.on_epoch_end()


def number_of_batches(source) -> int | None:
    """How many batches one pass has, `None` where it is unknown or endless."""
    if is_tf_dataset(source):
        cardinality = int(source.cardinality())
        return cardinality if cardinality >= 0 else None
    return source.num_batches
