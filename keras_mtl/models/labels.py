"""Which labels are there: the one place where missing labels are found."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

ELEMENTWISE = {
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "huber",
    "log_cosh",
    "poisson",
    "hinge",
    "squared_hinge",
}
"""Keras losses that average one value an element over the last axis, by function.

Only for these can single elements of a row of labels be missing.
"""


@dataclass
class Labels:
    """Labels with the missing ones made harmless, and where they are.

    Attributes:
        y_true: Labels; a missing one reads 0.
        y_pred: Predictions of the same rank, in float32.
        present: Boolean, true where a label is there. It has the axes of
            `y_true`, less trailing ones where sample weights or masks say more.
        weight: Sample weights that broadcast to the values of the loss, or None.
    """

    y_true: Any
    y_pred: Any
    present: Any
    weight: Any


def align(y_true: Any, y_pred: Any, name: str) -> tuple[Any, Any]:
    """Gives labels and predictions the ranks that a loss can compare.

    Args:
        y_true: Labels of one task, an array or tensor.
        y_pred: Predictions of the task.
        name: Name of the task, for errors.

    Returns:
        The pair: labels (floats in float32, others in their dtype) and
        predictions in float32, each of rank 2 or more but for labels that are
        class indices.

    Raises:
        ValueError: The ranks differ by more than the one axis of class scores.
    """
    y_true = ops.convert_to_tensor(y_true)
    y_pred = ops.cast(y_pred, "float32")
    dtype = keras.backend.standardize_dtype(y_true.dtype)
    if "float" in dtype and dtype != "float32":
        y_true = ops.cast(y_true, "float32")
    if dtype == "bool":
        y_true = ops.cast(y_true, "int32")
    if len(y_pred.shape) == 1:
        y_pred = ops.expand_dims(y_pred, -1)
    if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    if len(y_true.shape) not in (len(y_pred.shape), len(y_pred.shape) - 1):
        raise ValueError(
            f"Labels of task '{name}' must have the shape of its predictions "
            f"{_shape(y_pred)}, or one axis less for class indices. "
            f"Received: labels of shape {_shape(y_true)}"
        )
    rows, expected = y_true.shape[0], y_pred.shape[0]
    if None not in (rows, expected) and rows != expected:
        raise ValueError(
            f"Labels and predictions of task '{name}' must have as many rows. "
            f"Received: labels of shape {_shape(y_true)}, predictions of shape "
            f"{_shape(y_pred)}"
        )
    return y_true, y_pred


def check_elementwise(y_true: Any, y_pred: Any, name: str) -> None:
    """Refuses labels that would be broadcast against the predictions.

    Raises:
        ValueError: The shapes differ where an elementwise loss compares them.
    """
    sizes = zip(y_true.shape, y_pred.shape, strict=False)
    differ = any(None not in pair and pair[0] != pair[1] for pair in sizes)
    if len(y_true.shape) == len(y_pred.shape) and not differ:
        return
    raise ValueError(
        f"The loss of task '{name}' compares labels and predictions one by one: "
        f"their shapes must be equal. Received: labels of shape {_shape(y_true)}, "
        f"predictions of shape {_shape(y_pred)}"
    )


def find_missing(
    y_true: Any,
    y_pred: Any,
    *,
    mask_value: Any = None,
    sample_weight: Any = None,
    prediction_mask: Any = None,
    rows: Any = None,
) -> Labels:
    """Finds the missing labels and makes them harmless.

    A label is missing where it is NaN, equals the mask value, has a sample
    weight of 0, is masked in the prediction, or is in a row of another task.

    Args:
        y_true: Aligned labels, of any leading axes.
        y_pred: Aligned predictions.
        mask_value: Value that stands for a missing label, or an array of such
            values that broadcasts to the labels (NaN where a task has none).
        sample_weight: Weights, of the leading axes of the labels or fewer.
        prediction_mask: Boolean Keras mask of the predictions.
        rows: Boolean, the rows that belong to the task at all; or of shape
            `(T, rows)`, those of each task, where the labels have a first axis
            of 1.
    """
    if "float" in keras.backend.standardize_dtype(y_true.dtype):
        present = ops.logical_not(ops.isnan(y_true))
    else:
        present = ops.ones_like(y_true, dtype="bool")
    if mask_value is not None:
        present = ops.logical_and(
            present, ops.not_equal(ops.cast(y_true, "float32"), mask_value)
        )
    if rows is not None:
        present = _both(present, rows)
    there = present
    if rows is not None and len(rows.shape) == 2:
        # Each label is one task's: a label of another task, with another loss or
        # mask value, must be harmless too.
        there = ops.any(present, axis=0, keepdims=True)
    y_true = ops.where(there, y_true, ops.zeros_like(y_true))
    weight = None
    if sample_weight is not None:
        weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
        present = _both(present, ops.not_equal(weight, 0.0))
    if prediction_mask is not None:
        present = _both(present, ops.cast(prediction_mask, "bool"))
    return Labels(y_true, y_pred, present, weight)


def at_rank(mask: Any, rank: int) -> Any:
    """Brings a boolean mask of labels to the rank of the values of a loss.

    A row whose labels are reduced to one value counts if they are all there.
    """
    while len(mask.shape) > rank:
        mask = ops.all(mask, axis=-1)
    return _to_rank(mask, rank)


def weight_at_values(weight: Any, values: Any, name: str) -> Any:
    """Brings sample weights to the rank of the values of a loss."""
    while len(weight.shape) > len(values.shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    if len(weight.shape) > len(values.shape):
        raise ValueError(
            f"`sample_weight` of task '{name}' must broadcast to the values of its "
            f"loss, of shape {_shape(values)}. Received: {_shape(weight)}"
        )
    return _to_rank(weight, len(values.shape))


def _both(mask: Any, other: Any) -> Any:
    rank = max(len(mask.shape), len(other.shape))
    return ops.logical_and(_to_rank(mask, rank), _to_rank(other, rank))


def _to_rank(tensor: Any, rank: int) -> Any:
    while len(tensor.shape) < rank:
        tensor = ops.expand_dims(tensor, -1)
    return tensor


def _shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape)
