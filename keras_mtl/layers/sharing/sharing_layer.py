"""What layers have in common whose outputs are one tensor for each task."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mtl.layers.task_structure import (
    TaskStructure,
    check_task_names,
    shapes_of,
    specs_of,
)


class SharingLayer(keras.layers.Layer):
    """Base of layers with an output for each task.

    The input is one tensor, or a dict or a list with one for each task; the output is
    a list if the input is one, and else a dict. A subclass gives `call` and
    `compute_output_shape`.

    Args:
        task_names: The tasks. `None`, where a subclass allows it, are those of the
            input: the keys of a dict in sorted order, the places of a list.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    extra_keys: Sequence[str] = ()
    """Keys that a dict of inputs has beside those of the tasks."""

    def __init__(self, task_names: Sequence[str] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if task_names is not None:
            task_names = check_task_names(task_names)
        self.task_names = task_names
        self.supports_masking = True

    @property
    def num_tasks(self) -> int:
        """Number of tasks, T."""
        return len(self.task_names)

    def output_names(self, inputs: Any) -> list[str]:
        """Returns the keys of the outputs in the order that Keras flattens them in."""
        structure = self.structure_of(inputs)
        shapes = self.compute_output_shape(shapes_of(inputs))
        if structure.kind == "list":
            return [*structure.names, *self.extra_keys][: len(shapes)]
        return keras.tree.flatten({key: key for key in shapes})

    def task_parts(
        self,
    ) -> list[tuple[keras.layers.Layer, Sequence[str] | None]]:
        """Returns the parts with parameters, each with the tasks whose outputs use it.

        `None` stands for all tasks. A part with `stacked_by_task` has parameters for
        each. What is in no part serves all tasks.
        """
        return []

    def structure_of(self, inputs: Any) -> TaskStructure:
        """Returns how inputs, their specs or their shapes are nested."""
        return TaskStructure.of(inputs, self.task_names, self.extra_keys)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks the structure of the inputs, then calls the layer."""
        self.structure_of(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """For each task that of its input."""
        if not _any_mask(previous_mask):
            return None
        structure = self.structure_of(inputs)
        return structure.nest(structure.values(previous_mask)[: len(structure.names)])

    def compute_output_spec(
        self, inputs: Any, mask: Any = None, training: bool | None = None
    ) -> dict[str, keras.KerasTensor] | list[keras.KerasTensor]:
        """Checks the inputs and returns the specs of the outputs."""
        shapes = self.compute_output_shape(shapes_of(inputs))
        return specs_of(shapes, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "task_names": self.task_names}


def _any_mask(masks: Any) -> bool:
    if isinstance(masks, Mapping):
        masks = list(masks.values())
    if isinstance(masks, list | tuple):
        return any(mask is not None for mask in masks)
    return masks is not None
