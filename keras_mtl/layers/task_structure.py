"""One tensor for all tasks, or one for each: what layers that share are called with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras


def check_task_names(task_names: Any, at_least: int = 1) -> list[str]:
    """Returns names of tasks as a list, or says what is wrong with them.

    Args:
        task_names: What the user gave.
        at_least: The number of tasks needed.

    Raises:
        ValueError: If it is no list of different strings.
    """
    valid = isinstance(task_names, Sequence) and not isinstance(task_names, str)
    if not valid or not all(isinstance(name, str) for name in task_names):
        raise ValueError(
            "`task_names` must be a list of strings. "
            f"Received: task_names={task_names!r}"
        )
    if len(set(task_names)) < len(task_names):
        raise ValueError(
            "`task_names` must not hold a name twice. "
            f"Received: task_names={list(task_names)}"
        )
    if len(task_names) < at_least:
        raise ValueError(
            f"`task_names` must hold {at_least} or more names. "
            f"Received: task_names={list(task_names)}"
        )
    return list(task_names)


@dataclass(frozen=True)
class TaskStructure:
    """How the tensors of tasks are nested.

    Attributes:
        names: The tasks, in the layer's own order.
        kind: "one" tensor for all tasks, a "dict" or a "list" with one for each.
    """

    names: tuple[str, ...]
    kind: str

    @classmethod
    def of(
        cls,
        inputs: Any,
        task_names: Sequence[str] | None,
        extra: Sequence[str] = (),
    ) -> "TaskStructure":
        """Returns the structure of a layer's inputs: tensors, specs or shapes.

        Args:
            inputs: The inputs.
            task_names: The tasks, or `None` to take those of the inputs.
            extra: Keys that a dict has beside those of the tasks.

        Raises:
            ValueError: If the inputs have other tasks than the layer.
        """
        if isinstance(inputs, Mapping):
            if task_names is None:
                names = sorted(inputs)
            else:
                names = list(task_names)
                expected = sorted([*names, *extra])
                if sorted(map(str, inputs)) != expected:
                    raise ValueError(
                        f"The input must be a dict with the keys {expected}. "
                        f"Received: keys {sorted(map(str, inputs))}"
                    )
            values, kind = [inputs[k] for k in (*names, *extra)], "dict"
        elif isinstance(inputs, list | tuple) and not is_shape(inputs):
            names = list(
                task_names
                if task_names is not None
                else map(str, range(len(inputs) - len(extra)))
            )
            if len(inputs) != len(names) + len(extra):
                raise ValueError(
                    "The input must be a list with one tensor for each of "
                    f"{[*names, *extra]}. Received: {len(inputs)} tensors"
                )
            values, kind = list(inputs), "list"
        elif task_names is None:
            raise ValueError(
                "The input must be a dict or a list with one tensor for each task. "
                f"Received: {inputs!r}"
            )
        else:
            return cls(tuple(task_names), "one")
        if not names:
            raise ValueError(
                f"The input must have one task or more. Received: {inputs!r}"
            )
        if any(isinstance(v, Mapping) or _is_list(v) for v in values):
            raise ValueError(
                "The input must have one tensor for each task, not a nest of them. "
                f"Received: {inputs!r}"
            )
        return cls(tuple(names), kind)

    @property
    def is_one(self) -> bool:
        """Whether there is one tensor for all tasks."""
        return self.kind == "one"

    def values(self, inputs: Any, extra: Sequence[str] = ()) -> list[Any]:
        """Returns what there is for each task, in order, those of `extra` last."""
        if self.is_one:
            return [inputs] * (len(self.names) + len(extra))
        if self.kind == "list":
            return list(inputs)
        return [inputs[key] for key in (*self.names, *extra)]

    def nest(self, values: Sequence[Any], extra: Sequence[str] = ()) -> Any:
        """Returns outputs by task: a dict, or a list where the inputs are one."""
        if self.kind == "list":
            return list(values)
        return dict(zip((*self.names, *extra), values, strict=True))


def is_shape(value: Any) -> bool:
    """Whether a tuple or list is the shape of one tensor."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(size is None or isinstance(size, int) for size in value)
    )


def same_shape(
    structure: TaskStructure, shapes: Any, extra: Sequence[str] = ()
) -> tuple[int | None, ...]:
    """Returns the one shape that the inputs of all tasks have.

    Args:
        structure: How the inputs are nested.
        shapes: Their shapes.
        extra: Keys that a dict has beside those of the tasks.

    Raises:
        ValueError: If they differ in an axis of known size, or in their number.
    """
    found = [tuple(shape) for shape in structure.values(shapes, extra)]
    error = ValueError(
        "The inputs of all tasks must have one shape. Received: shapes "
        f"{dict(zip((*structure.names, *extra), found, strict=True))}"
    )
    if len({len(shape) for shape in found}) > 1:
        raise error
    joint = []
    for sizes in zip(*found, strict=True):
        known = {size for size in sizes if size is not None}
        if len(known) > 1:
            raise error
        joint.append(known.pop() if known else None)
    return tuple(joint)


def shape_of_each(structure: TaskStructure, shapes: Any) -> tuple[int | None, ...]:
    """Returns the one shape of inputs of which each task has its own.

    Raises:
        ValueError: If there is one input for all tasks, or if shapes differ.
    """
    if structure.is_one:
        raise ValueError(
            "The input must be a dict or a list with one tensor for each task. "
            f"Received: one tensor of shape {tuple(shapes)}"
        )
    return same_shape(structure, shapes)


def specs_of(shapes: Any, dtype: str) -> Any:
    """Returns a nest of shapes as specs of one dtype."""
    if isinstance(shapes, Mapping):
        return {key: specs_of(shape, dtype) for key, shape in shapes.items()}
    if is_shape(shapes):
        return keras.KerasTensor(tuple(shapes), dtype=dtype)
    return [specs_of(shape, dtype) for shape in shapes]


def shapes_of(inputs: Any) -> Any:
    """Returns a nest of tensors as their shapes."""
    if isinstance(inputs, Mapping):
        return {key: shapes_of(x) for key, x in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [shapes_of(x) for x in inputs]
    return tuple(inputs.shape)


def masks_of(
    structure: TaskStructure, inputs: Any, masks: Any, extra: Sequence[str] = ()
) -> list[Any] | None:
    """Returns a mask for each task's input, or None if no input has one.

    Args:
        structure: How the inputs are nested.
        inputs: The inputs.
        masks: Their masks, nested alike; an input without one has `None`.
        extra: Keys that a dict has beside those of the tasks.
    """
    if masks is None:
        return None
    values = structure.values(inputs, extra)
    found = structure.values(masks, extra)
    known = [mask for mask in found if mask is not None]
    if not known:
        return None
    rank = len(known[0].shape)
    return [
        keras.ops.ones(keras.ops.shape(x)[:rank], "bool")
        if mask is None
        else keras.ops.cast(mask, "bool")
        for x, mask in zip(values, found, strict=True)
    ]


def joint_mask(masks: Any) -> Any:
    """Returns the positions that are valid for every task that has a mask, or None."""
    if isinstance(masks, Mapping):
        masks = [masks[key] for key in sorted(masks)]
    if not isinstance(masks, list | tuple):
        return masks
    found = None
    for mask in masks:
        if mask is not None:
            mask = keras.ops.cast(mask, "bool")
            found = mask if found is None else keras.ops.logical_and(found, mask)
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and not is_shape(value)
