"""The losses of all tasks, tasks of one loss in one go."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl import engine
from keras_mtl.models.labels import (
    ELEMENTWISE,
    align,
    at_rank,
    check_elementwise,
    find_missing,
    weight_at_values,
)
from keras_mtl.models.loss_arguments import loss_arguments

_STACKABLE = ELEMENTWISE - {"hinge", "squared_hinge"} | {
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "cosine_similarity",
    "kl_divergence",
    "sparse_categorical_crossentropy",
}
"""Keras losses that work along the last axis and on each row by itself, by function.

Only these can take several tasks at once. (A hinge looks at the whole batch to see
whether its labels are 0 and 1, or -1 and 1.)
"""


@keras.saving.register_keras_serializable("keras_mtl")
class FunctionLoss(keras.losses.Loss):
    """A loss given as a function `(y_true, y_pred) -> values`.

    Args:
        fn: Function of labels and predictions.
        name: String, optional.
    """

    def __init__(self, fn: Any, name: str | None = None) -> None:
        # Never the name of `fn`: "<lambda>" is no name scope of TensorFlow.
        super().__init__(name=name or "function_loss")
        self.fn = fn

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns what the function returns."""
        return self.fn(y_true, y_pred)


@dataclass
class TaskBatch:
    """One task's part of a batch.

    Attributes:
        y_true: Labels.
        y_pred: Predictions.
        sample_weight: Weights, or None.
        prediction_mask: Keras mask of the predictions, or None.
        rows_from: What the rows come from: only tasks whose rows come from the same
            are known to have as many.
    """

    y_true: Any
    y_pred: Any
    sample_weight: Any = None
    prediction_mask: Any = None
    rows_from: Hashable = None


class TaskLosses:
    """Computes the losses of T tasks from their labels and predictions.

    The loss of a task is the mean over its labels that are there:

    $$ L_k = \\frac{\\sum_i m_{ki} v_{ki} \\ell_k(y_{ki}, \\hat y_{ki})}
                  {\\sum_i m_{ki}} $$

    with the mask m of labels that are there and the sample weights v. Tasks that
    have the same loss and labels of the same shape are stacked and computed
    together, so that the number of operations does not grow with T.

    Args:
        losses: Losses by task: names, functions or `keras.losses.Loss`.
        mask_values: By task, the value that stands for a missing label.
    """

    def __init__(
        self,
        losses: Mapping[str, Any],
        mask_values: Mapping[str, float],
    ) -> None:
        self.task_names = list(losses)
        self.losses = {name: _resolve(loss) for name, loss in losses.items()}
        self.mask_values = {
            name: loss.ignore_class
            for name, loss in self.losses.items()
            if getattr(loss, "ignore_class", None) is not None
        }
        self.mask_values.update(mask_values)
        self.class_weights: dict[str, dict[int, float]] = {}
        self._keys = {name: _identity(loss) for name, loss in self.losses.items()}

    def __call__(
        self,
        batch: Mapping[str, TaskBatch | None],
        *,
        membership: Any = None,
        training: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Returns sums, denominators and counts of present labels, each `(T,)`.

        Args:
            batch: By task, its part of the batch; None for a task without labels.
            membership: Boolean of shape `(T, rows)` where the rows of one tensor
                belong to different tasks; every task then has the same labels
                and predictions in `batch`.
            training: Whether class weights are in force.
        """
        groups: dict[Any, list[str]] = {}
        aligned = {}
        for name in self.task_names:
            part = batch.get(name)
            if part is None:
                continue
            part = self._prepare(name, part, training)
            aligned[name] = part
            group = self._group(name, part, membership is not None)
            groups.setdefault(group, []).append(name)
        columns = dict.fromkeys(self.task_names)
        for names in groups.values():
            rows = None
            if membership is not None:
                index = [self.task_names.index(name) for name in names]
                rows = membership
                if len(index) != len(self.task_names):
                    rows = ops.take(membership, np.array(index), axis=0)
            result = self._group_losses([(n, aligned[n]) for n in names], rows)
            for name, column in zip(names, range(len(names)), strict=True):
                columns[name] = (result, column)
        return _gather(columns)

    def _prepare(self, name: str, part: TaskBatch, training: bool) -> TaskBatch:
        """Aligns a task's part and turns its class weights into sample weights."""
        y_true, y_pred = align(part.y_true, part.y_pred, name)
        weight = part.sample_weight
        if weight is not None:
            weight = ops.cast(ops.convert_to_tensor(weight), "float32")
        table = self.class_weights.get(name) if training else None
        elementwise = is_elementwise(self.losses[name])
        if elementwise:
            check_elementwise(y_true, y_pred, name)
        if table is not None:
            by_class = _class_weight(table, y_true, elementwise)
            if weight is not None:
                weight = weight_at_values(weight, by_class, name)
                by_class = by_class * weight
            weight = by_class
        if elementwise and y_true.shape[-1] != 1:
            # One more axis for the loss to average over leaves one value a label.
            y_true = ops.expand_dims(y_true, -1)
            y_pred = ops.expand_dims(y_pred, -1)
        return TaskBatch(y_true, y_pred, weight, part.prediction_mask, part.rows_from)

    def _group(self, name: str, part: TaskBatch, same: bool) -> Any:
        """What tasks have in common that are computed together.

        Args:
            name: Name of the task.
            part: Its part of the batch.
            same: Whether all tasks have the same labels and predictions.
        """

        def kind(tensor):
            if tensor is None:
                return None
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            return tuple(tensor.shape), dtype

        tensors = part.y_true, part.y_pred, part.sample_weight, part.prediction_mask
        key = self._keys[name] if same or _is_stackable(self.losses[name]) else name
        return (key, part.rows_from, name in self.mask_values, *map(kind, tensors))

    def _group_losses(
        self, parts: Sequence[tuple[str, TaskBatch]], rows: Any
    ) -> tuple[Any, Any, Any]:
        """Sums, denominators and counts of the tasks of one loss, each `(G,)`."""
        names = [name for name, _ in parts]
        first = parts[0][1]
        loss = self.losses[names[0]]

        def stack(field):
            tensors = [getattr(part, field) for _, part in parts]
            if tensors[0] is None:
                return None
            same = rows is not None  # but for the weights that classes have by task
            if field == "sample_weight" and self.class_weights:
                same = False
            if same or len(tensors) == 1:
                return ops.expand_dims(tensors[0], 0)
            return ops.stack(tensors)

        mask_value = None
        if names[0] in self.mask_values:
            mask_value = ops.reshape(
                np.array([self.mask_values[n] for n in names], "float32"),
                (-1,) + (1,) * len(first.y_true.shape),
            )
        sample_weight = stack("sample_weight")
        labels = find_missing(
            stack("y_true"),
            stack("y_pred"),
            mask_value=mask_value,
            sample_weight=sample_weight,
            prediction_mask=stack("prediction_mask"),
            rows=rows,
        )
        if _is_stackable(loss):
            values = _all_at_once(loss, labels.y_true, labels.y_pred)
        else:
            values = _one_by_one(loss, labels.y_true, labels.y_pred)
            if len(values.shape) == 1:
                return self._scalar_loss(names[0], first, values[0], labels, rows)
        present = at_rank(labels.present, len(values.shape))
        axes = tuple(range(1, len(values.shape)))
        counted = ops.cast(present, "float32")
        masked = ops.where(present, values, 0.0)
        if tuple(present.shape) != tuple(values.shape):
            counted = counted * ops.ones_like(masked)  # one a value, also if broadcast
        denominators = counts = ops.sum(counted, axis=axes)
        if labels.weight is not None:
            weight = weight_at_values(labels.weight, values, names[0])
            masked = masked * weight
            if loss.reduction == "mean_with_sample_weight":
                denominators = ops.sum(counted * weight, axis=axes)
        if loss.reduction == "sum":
            # They are summed over replicas, as the losses are.
            denominators = ops.ones_like(counts) / engine.num_replicas()
        return ops.sum(masked, axis=axes), denominators, counts

    def _scalar_loss(self, name, part, value, labels, rows):
        masked = part.sample_weight is not None or name in self.mask_values
        if masked or rows is not None:
            raise ValueError(
                f"The loss function of task '{name}' returns one number for the whole "
                "batch: sample weights, class weights, a mask value or the rows of "
                "other tasks cannot be taken into account. Return one value a row. "
                f"Received: a loss function that returns shape {tuple(value.shape)}"
            )
        count = ops.sum(ops.cast(at_rank(labels.present, 2), "float32"))
        # Rows cannot be left out of one number, so a missing label must show.
        value = ops.where(ops.all(labels.present), value, np.float32("nan"))
        value = ops.where(count > 0, value, 0.0)
        one = ops.ones((1,), "float32")
        return ops.reshape(value, (1,)), one, ops.reshape(count, (1,))


def is_elementwise(loss: keras.losses.Loss) -> bool:
    """Whether the loss averages one value an element over the last axis."""
    return _keras_function(loss) in ELEMENTWISE


def _is_stackable(loss: keras.losses.Loss) -> bool:
    return _keras_function(loss) in _STACKABLE


def _keras_function(loss: keras.losses.Loss) -> str | None:
    """Name of the function of Keras behind a loss along the last axis, or None."""
    if isinstance(loss, FunctionLoss):
        name = getattr(loss.fn, "__name__", "")
        return name if getattr(keras.losses, name, None) is loss.fn else None
    of_keras = type(loss).__module__.startswith("keras.")
    if not of_keras or loss_arguments(loss).get("axis", -1) != -1:
        return None
    return getattr(getattr(loss, "fn", None), "__name__", None)


def _all_at_once(loss: keras.losses.Loss, y_true: Any, y_pred: Any) -> Any:
    """Calls a loss with the labels of several tasks."""
    classes = y_pred.shape[-1]
    if _keras_function(loss) != "sparse_categorical_crossentropy" or classes is None:
        return ops.cast(loss.call(y_true, y_pred), "float32")
    # As rows: PyTorch has no gradient of probabilities with two axes between.
    rows = ops.shape(y_pred)[:-1]
    values = loss.call(ops.reshape(y_true, (-1,)), ops.reshape(y_pred, (-1, classes)))
    return ops.cast(ops.reshape(values, rows), "float32")


def _one_by_one(loss: keras.losses.Loss, y_true: Any, y_pred: Any) -> Any:
    """Calls a loss with the shapes that it was written for: those of one task."""
    values = [loss.call(y_true[i], y_pred[i]) for i in range(y_true.shape[0])]
    return ops.cast(ops.stack(values), "float32")


def task_labels(
    losses: TaskLosses, name: str, part: TaskBatch, rows: Any = None
) -> Any:
    """Returns the labels of one task with the missing ones made harmless."""
    y_true, y_pred = align(part.y_true, part.y_pred, name)
    return find_missing(
        y_true,
        y_pred,
        mask_value=losses.mask_values.get(name),
        sample_weight=part.sample_weight,
        prediction_mask=part.prediction_mask,
        rows=rows,
    )


def _resolve(loss: Any) -> keras.losses.Loss:
    loss = keras.losses.get(loss)
    return loss if isinstance(loss, keras.losses.Loss) else FunctionLoss(loss)


def _identity(loss: keras.losses.Loss) -> Any:
    """What losses have in common that compute the same."""
    if isinstance(loss, FunctionLoss):
        return loss.fn
    if not type(loss).__module__.startswith("keras."):
        return id(loss)
    config = {k: v for k, v in loss_arguments(loss).items() if k != "name"}
    return type(loss), json.dumps(config, sort_keys=True, default=repr)


def _class_weight(table: Mapping[int, float], y_true: Any, elementwise: bool) -> Any:
    classes = y_true
    if not elementwise and y_true.shape[-1] not in (None, 1) and len(y_true.shape) > 1:
        classes = ops.argmax(y_true, axis=-1)
    classes = ops.cast(classes, "float32")
    weight = ops.ones_like(classes)
    for index, value in table.items():
        weight = ops.where(ops.equal(classes, float(index)), float(value), weight)
    return weight


def _gather(columns: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Puts the groups' results into the order of the tasks."""
    results = []
    offsets = {}
    start = 0
    for entry in columns.values():
        if entry is not None and id(entry[0]) not in offsets:
            offsets[id(entry[0])] = start
            results.append(entry[0])
            start += entry[0][0].shape[0]
    absent = any(entry is None for entry in columns.values())
    if absent:
        zero = ops.zeros((1,), "float32")
        results.append((zero, ops.ones((1,), "float32"), zero))
    order = [
        start if entry is None else offsets[id(entry[0])] + entry[1]
        for entry in columns.values()
    ]
    gathered = []
    for field in range(3):
        vectors = [result[field] for result in results]
        vector = vectors[0] if len(vectors) == 1 else ops.concatenate(vectors)
        if order != list(range(len(order))) or vector.shape[0] != len(order):
            vector = ops.take(vector, np.array(order), axis=0)
        gathered.append(vector)
    return tuple(gathered)
