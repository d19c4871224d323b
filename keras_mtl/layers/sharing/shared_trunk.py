"""One trunk over the rows of all tasks, when each task has its own input."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.wrapped_layer import call_with_mask, mask_after


@keras.saving.register_keras_serializable("keras_mtl")
class SharedTrunk(keras.layers.Layer):
    """Runs a layer or model once over the rows of all tasks.

    $$ [h_1; \\dots; h_T] = f_{\\theta_{sh}}([x_1; \\dots; x_T]) $$

    The inputs of the tasks are concatenated along the batch axis, pass the
    trunk together and are split again. So the trunk's parameters serve every
    task, statistics over the batch (`BatchNormalization`) are those of all
    tasks' rows, and there is one pass where calling the trunk on each input
    would make T. Batch sizes may differ between tasks, and a task may have no
    rows. Where the inputs of the tasks differ in shape, put a layer of each
    task's own before the trunk.

    Rows are joined in the sorted order of the tasks' names, whatever the order
    of the dict.

    Args:
        trunk: A `keras.Layer` or model, with one input tensor.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Dict `{task: (B_task, ...)}`: tensors of one dtype and, after the batch
        axis, of one shape.

    Output shape:
        Dict with the same keys: for each task, the trunk's output for its rows
        `(B_task, ...)`, or a nest of them if the trunk returns one.

    Raises:
        ValueError: If the input is no dict or an empty one, or if the tensors
            differ in dtype or in an axis after the first.

    Example:

    ```python
    photo = keras.Input((32, 32, 3), name="photo")
    sketch = keras.Input((64,), name="sketch")
    as_vector = keras.layers.Dense(16)(keras.layers.Flatten()(photo))
    trunk = keras.Sequential([keras.layers.Dense(32, "relu")])
    features = keras_mtl.layers.SharedTrunk(trunk)(
        {"photo": as_vector, "sketch": keras.layers.Dense(16)(sketch)}
    )
    outputs = {task: keras.layers.Dense(1)(h) for task, h in features.items()}
    model = keras.Model({"photo": photo, "sketch": sketch}, outputs)
    y = model({"photo": np.ones((4, 32, 32, 3)), "sketch": np.ones((6, 64))})
    assert y["photo"].shape == (4, 1) and y["sketch"].shape == (6, 1)
    ```

    Reference:
        Caruana, "Multitask Learning", Machine Learning 28, 1997,
        https://doi.org/10.1023/A:1007379606734
    """

    keeps_tasks_apart: bool = True
    """Each task's outputs are made of its own rows: what is before stays private."""

    def __init__(self, trunk: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(trunk, keras.layers.Layer):
            raise ValueError(
                f"`trunk` must be a keras.layers.Layer. Received: {trunk!r}"
            )
        self.trunk = trunk
        self.supports_masking = True

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Builds the trunk on the rows of all tasks."""
        shape = _joint_shape(input_shape)
        if not self.trunk.built:
            self.trunk.build(shape)

    def __call__(self, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Checks that there is a dict of tensors, then calls the layer."""
        _check_structure(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(
        self, inputs: dict[str, Any], mask: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the trunk's outputs, a dict with the keys of `inputs`."""
        _check_tensors(inputs)
        tasks = sorted(inputs)
        rows = ops.concatenate([inputs[task] for task in tasks], axis=0)
        outputs = call_with_mask(self.trunk, rows, _joint_mask(inputs, mask))
        outputs = _in_key_order(outputs)
        split, start = {}, 0
        for task in tasks:
            stop = start + ops.shape(inputs[task])[0]
            split[task] = _slice_rows(outputs, start, stop)
            start = stop
        return {task: split[task] for task in inputs}

    def compute_mask(
        self, inputs: dict[str, Any], previous_mask: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """For each task, the mask that the trunk makes of that of its input."""
        if previous_mask is None or not any(
            mask is not None for mask in previous_mask.values()
        ):
            return None
        return {
            task: _in_key_order(mask_after(self.trunk, x, previous_mask[task]))
            for task, x in inputs.items()
        }

    def compute_output_shape(
        self, input_shape: dict[str, tuple[int | None, ...]]
    ) -> dict[str, Any]:
        """For each task the trunk's, with the task's own number of rows."""
        joint = self.trunk.compute_output_shape(_joint_shape(input_shape))
        joint = _in_key_order(joint)
        return {
            task: keras.tree.map_shape_structure(
                lambda output, rows=shape[0]: (rows, *output[1:]), joint
            )
            for task, shape in input_shape.items()
        }

    def compute_output_spec(
        self, inputs: dict[str, Any], mask: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Checks the inputs and returns the spec for each task."""
        _check_tensors(inputs)
        shape = _joint_shape({task: x.shape for task, x in inputs.items()})
        dtype = next(iter(inputs.values())).dtype
        joint = self.trunk.compute_output_spec(keras.KerasTensor(shape, dtype=dtype))
        joint = _in_key_order(joint)
        return {
            task: keras.tree.map_structure(
                lambda y, rows=x.shape[0]: keras.KerasTensor(
                    (rows, *y.shape[1:]), dtype=y.dtype
                ),
                joint,
            )
            for task, x in inputs.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "trunk": keras.saving.serialize_keras_object(self.trunk),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SharedTrunk":
        """Creates the layer, with a trunk without weights, from its config."""
        trunk = keras.saving.deserialize_keras_object(config["trunk"])
        return cls(**{**config, "trunk": trunk})


def _check_structure(inputs: Any) -> None:
    if not isinstance(inputs, Mapping) or not inputs:
        raise ValueError(
            "The input must be a dict {task: tensor} with one task or more. "
            f"Received: {inputs!r}"
        )
    if any(keras.tree.is_nested(x) for x in inputs.values()):
        raise ValueError(
            "The input must be a dict with one tensor for each task. "
            f"Received: {inputs!r}"
        )


def _check_tensors(inputs: dict[str, Any]) -> None:
    dtypes = {
        task: keras.backend.standardize_dtype(x.dtype) for task, x in inputs.items()
    }
    if len(set(dtypes.values())) > 1:
        raise ValueError(
            f"The inputs of all tasks must have one dtype. Received: dtypes {dtypes}"
        )
    _joint_shape({task: x.shape for task, x in inputs.items()})


def _joint_shape(
    shapes: Mapping[str, tuple[int | None, ...]],
) -> tuple[int | None, ...]:
    error = ValueError(
        "The inputs of all tasks must have one shape after the batch axis: put a "
        "layer of each task's own before the trunk. "
        f"Received: shapes { {task: tuple(shape) for task, shape in shapes.items()} }"
    )
    if len({len(shape) for shape in shapes.values()}) > 1:
        raise error
    columns = list(zip(*shapes.values(), strict=True))
    joint = [None if None in columns[0] else sum(columns[0])]
    for column in columns[1:]:
        known = {size for size in column if size is not None}
        if len(known) > 1:
            raise error
        joint.append(known.pop() if known else None)
    return tuple(joint)


def _joint_mask(inputs: dict[str, Any], masks: dict[str, Any] | None) -> Any:
    """Joins the masks; a task without one has all its positions valid."""
    given = [] if masks is None else [m for m in masks.values() if m is not None]
    if not given:
        return None
    rank = len(given[0].shape)
    return ops.concatenate(
        [
            ops.ones(ops.shape(inputs[task])[:rank], dtype="bool")
            if masks[task] is None
            else ops.cast(masks[task], "bool")
            for task in sorted(inputs)
        ],
        axis=0,
    )


def _in_key_order(nest: Any) -> Any:
    """Sorts the keys of dicts: inside a dict, Keras on torch goes by their order."""
    if isinstance(nest, Mapping):
        return {key: _in_key_order(nest[key]) for key in sorted(nest)}
    return nest


def _slice_rows(outputs: Any, start: Any, stop: Any) -> Any:
    return keras.tree.map_structure(lambda y: y[start:stop], outputs)
