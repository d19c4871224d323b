"""Regression labels on one scale, predictions in the user's units."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.data.batch_stream import is_batch_stream, one_pass
from keras_mtl.data.label_statistics import robust, standardising
from keras_mtl.data.scaled_loss import ScaledLoss

METHODS = ("standardize", "robust")


@keras.saving.register_keras_serializable("keras_mtl")
class LabelScaler(keras.layers.Layer):
    """Takes a head's output from the unit scale to the units of the labels.

    $$\\hat y = m + s\\,u, \\qquad u = \\frac{y - m}{s}$$

    `adapt` learns the centre $m$ and the scale $s$ of each column of the labels:
    mean and standard deviation, or the median and the interquartile range divided
    by 1.349 (the same for normal labels, and indifferent to outliers). They are
    non-trainable weights, saved and loaded with the model. Until `adapt` the layer
    changes nothing. Everything is computed in float32 at least, whatever the dtype
    policy.

    As the last layer of a head it leaves the head to predict numbers near one while
    the model predicts in the user's units, so that metrics are in those too.
    Compile the task with `scaler.loss("mse")` to have its loss on the unit scale,
    where tasks of different units weigh alike.

    Args:
        method: `"standardize"` or `"robust"`. Defaults to `"standardize"`.
        axis: `-1` for a centre and scale of each column (the last axis; labels of
            one axis are one column), `None` for one of all values, as for an image
            of labels. Defaults to `-1`.
        mask_value: Number that marks a missing label besides NaN. Defaults to
            `None`.
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor `(..., columns)` on the unit scale.

    Output: tensor of the same shape in the units of the labels.

    Raises:
        ValueError: for other values of `method` or `axis`.

    Example:

    ```python
    hours = np.array([40.0, 38.0, np.nan, 20.0, 60.0])
    scaler = keras_mtl.data.LabelScaler()
    scaler.adapt(hours)

    inputs = keras.Input((3,))
    outputs = {"hours": scaler(keras.layers.Dense(1)(inputs))}
    model = keras.Model(inputs, outputs)
    model.compile("adam", loss={"hours": scaler.loss("mse")})

    print(ops.convert_to_numpy(scaler.scale(hours)).round(2))
    ```
    """

    def __init__(
        self,
        method: str = "standardize",
        axis: int | None = -1,
        mask_value: float | None = None,
        **kwargs,
    ):
        if method not in METHODS:
            raise ValueError(
                f"`method` must be one of {list(METHODS)}. Received: method={method!r}"
            )
        if axis not in (-1, None):
            raise ValueError(
                "`axis` must be -1 (a scale for each column) or None (one for all "
                f"values). Received: axis={axis!r}"
            )
        # Half precision would round, or overflow on, what is in the user's units.
        super().__init__(autocast=False, **kwargs)
        self.method = method
        self.axis = axis
        self.mask_value = mask_value
        self.supports_masking = True

    def build(self, input_shape) -> None:
        """Makes the weights, for as many columns as the last axis has."""
        shape = (_columns(input_shape),) if self.axis == -1 else ()

        def statistic(name, initializer):
            return self.add_weight(
                shape=shape,
                initializer=initializer,
                trainable=False,
                dtype=keras.backend.result_type(self.variable_dtype, "float32"),
                # A model of half precision casts what its layers read.
                autocast=False,
                name=name,
            )

        self.mean = statistic("mean", "zeros")
        self.deviation = statistic("deviation", "ones")
        self.count = statistic("count", "zeros")

    def adapt(
        self, data: Any, sample_weight: Any = None, task: str | None = None
    ) -> None:
        """Learns centre and scale from labels, from those that are present.

        A label is missing where it is NaN or `mask_value`, or where its sample
        weight is zero; other weights play no part. Labels that are all the same get
        the scale one. What was learnt before is forgotten.

        Args:
            data: Labels `(rows,)` or `(rows, ..., columns)`; or a
                `keras.utils.PyDataset` or `tf.data.Dataset` of batches of labels, or
                of tuples `(x, y)` or `(x, y, sample_weight)`. `"robust"` needs to
                hold all labels at once.
            sample_weight: Array `(rows,)`, or of more axes of the labels. Only for
                arrays. Defaults to `None`.
            task: Key of the labels, where `y` is a dict. Defaults to `None`.

        Raises:
            ValueError: if a column has no label, if a label is infinite, if the
                number of columns is not that for which the layer was built, or if
                `task` is needed or unknown.
        """
        if is_batch_stream(data):
            if sample_weight is not None:
                raise ValueError(
                    "`sample_weight` is for arrays; a dataset must hold it itself. "
                    f"Received: a {type(data).__name__} and `sample_weight`"
                )
            parts = (_labels_of_batch(batch) for batch in one_pass(data))
        else:
            parts = [(data, sample_weight)]
        learn = standardising if self.method == "standardize" else robust
        columns = (self._columns(y, weight, task) for y, weight in parts)
        first = next(columns, None)
        if first is None:
            raise ValueError(
                "`data` must have at least one label. Received: a dataset without "
                "any batch"
            )
        count, mean, deviation = learn(_chained(first, columns))
        if not np.all(count > 0):
            raise ValueError(
                "Every column of the labels must have at least one that is present. "
                f"Received: none in columns {np.flatnonzero(count == 0).tolist()}"
            )
        if not self.built:
            self.build((None, len(count)))
        if self.axis == -1 and len(count) != self.mean.shape[0]:
            raise ValueError(
                f"The layer was built for {self.mean.shape[0]} columns; labels must "
                f"have as many. Received: labels of {len(count)} columns"
            )
        self.mean.assign(mean.reshape(self.mean.shape))
        # Cast first: what underflows to zero counts as no spread.
        deviation = deviation.astype(self.deviation.dtype)
        self.deviation.assign(
            np.where(deviation > 0, deviation, 1.0).reshape(self.mean.shape)
        )
        self.count.assign(count.reshape(self.mean.shape))

    def call(self, inputs):
        """From the unit scale to the units of the labels."""
        if self.axis == -1 and self.mean.shape[0] not in (1, _columns(inputs.shape)):
            raise ValueError(
                f"The layer knows {self.mean.shape[0]} columns; its inputs must have "
                f"as many on the last axis. Received: shape {tuple(inputs.shape)}"
            )
        inputs = ops.cast(inputs, self._dtype_of(inputs))
        mean, deviation = self._statistics(inputs.dtype)
        return inputs * deviation + mean

    def scale(self, labels):
        """Takes labels from their units to the unit scale.

        Args:
            labels: Array or tensor `(rows,)` or `(rows, ..., columns)`.

        Returns:
            Tensor of the same shape; NaN where a label is missing (NaN or
            `mask_value`).
        """
        if not ops.is_tensor(labels):
            # Large labels lose their differences in float32: subtract before.
            labels = np.asarray(labels, "float64")
            missing = labels == self.mask_value
            mean, deviation = (
                ops.convert_to_numpy(statistic).astype("float64")
                for statistic in self._statistics()
            )
            scaled = np.where(missing, np.nan, (labels - mean) / deviation)
            return ops.convert_to_tensor(scaled, keras.config.floatx())
        labels = ops.cast(labels, self._dtype_of(labels))
        mean, deviation = self._statistics(labels.dtype)
        scaled = (labels - mean) / deviation
        if self.mask_value is None:
            return scaled
        missing = ops.equal(labels, ops.cast(self.mask_value, labels.dtype))
        return ops.where(missing, ops.cast(float("nan"), labels.dtype), scaled)

    def loss(self, loss="mse", name: str = "scaled_loss") -> ScaledLoss:
        """A loss for the task's `compile`, computed on the unit scale.

        It keeps the centre and the scale that `adapt` has learnt by now.

        Args:
            loss: Name of a Keras loss, a `keras.losses.Loss` or a function. Defaults
                to `"mse"`.
            name: Defaults to `"scaled_loss"`.

        Returns:
            A `ScaledLoss`.

        Raises:
            ValueError: before `adapt`.
        """
        if not self.built or not np.all(ops.convert_to_numpy(self.count) > 0):
            raise ValueError(
                "`loss` needs the scale of the labels: call `adapt(labels)` first. "
                "Received: a LabelScaler that has seen no labels"
            )
        mean, deviation = (
            ops.convert_to_numpy(statistic).tolist() for statistic in self._statistics()
        )
        return ScaledLoss(loss, mean=mean, scale=deviation, name=name)

    def get_config(self) -> dict:
        """All arguments of the constructor."""
        return {
            **super().get_config(),
            "method": self.method,
            "axis": self.axis,
            "mask_value": self.mask_value,
        }

    def _statistics(self, dtype=None):
        if not self.built:
            return np.float64(0.0), np.float64(1.0)
        statistics = self.mean, self.deviation
        if dtype is None:
            return statistics
        return tuple(ops.cast(statistic, dtype) for statistic in statistics)

    def _dtype_of(self, values):
        return keras.backend.result_type(
            keras.backend.standardize_dtype(values.dtype), "float32"
        )

    def _columns(self, labels, sample_weight, task):
        if isinstance(labels, dict):
            if task not in labels:
                raise ValueError(
                    "`task` must name the labels to learn from, one of "
                    f"{list(labels)}. Received: task={task!r}"
                )
            labels = labels[task]
            if isinstance(sample_weight, dict):
                sample_weight = sample_weight.get(task)
        labels = _to_numpy(labels)
        if labels.ndim == 0:
            raise ValueError(
                "Labels must have their rows on the first axis. "
                f"Received: a single number, {labels}"
            )
        if np.any(np.isinf(labels)):
            raise ValueError(
                f"Labels must be finite or NaN. Received: {int(np.isinf(labels).sum())}"
                " infinite labels"
            )
        missing = np.isnan(labels) | (labels == self.mask_value)
        if sample_weight is not None:
            missing |= _weight_like(_to_numpy(sample_weight), labels) == 0
        columns = 1 if self.axis is None else _columns(labels.shape)
        return np.where(missing, np.nan, labels).reshape(-1, columns)


def _columns(shape):
    if len(shape) < 2:
        return 1
    if shape[-1] is None:
        raise ValueError(
            "The last axis must have a known length, or set `axis=None`. "
            f"Received: shape {tuple(shape)}"
        )
    return shape[-1]


def _chained(first, others):
    yield first
    yield from others


def _to_numpy(values):
    if ops.is_tensor(values):
        values = ops.convert_to_numpy(values)
    return np.asarray(values, "float64")


def _weight_like(weight, labels):
    leading_axes_only = weight.shape + (1,) * (labels.ndim - weight.ndim)
    try:
        return np.broadcast_to(weight.reshape(leading_axes_only), labels.shape)
    except ValueError:
        raise ValueError(
            "`sample_weight` must have the shape of the labels, or of their first "
            f"axes. Received: weights {weight.shape} for labels {labels.shape}"
        ) from None


def _labels_of_batch(batch):
    if not isinstance(batch, tuple):
        return batch, None
    if len(batch) not in (2, 3):
        raise ValueError(
            "A dataset must hand out labels, (x, y) or (x, y, sample_weight). "
            f"Received: a tuple of {len(batch)} items"
        )
    return batch[1], batch[2] if len(batch) == 3 else None
