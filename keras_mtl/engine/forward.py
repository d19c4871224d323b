"""Runs a forward pass in stages, under what records it for differentiation."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_mtl.engine.stages import HeadInput, Key, Stages


class Forward:
    """The tensors of a forward pass on TensorFlow or PyTorch.

    Args:
        stages: The stages.
        x: Inputs of the model.
        copy_of: Makes a copy of a tensor with a gradient of its own.

    Attributes:
        y_pred: The predictions.
        of_stages: For each stage of the trunk, the copies that it has read and the
            tensors that it has made, by key.
    """

    def __init__(self, stages: Stages, x: Any, copy_of: Callable[[Any], Any]) -> None:
        tensors = dict(stages.enter(x))
        self.of_stages: list[tuple[dict[Key, Any], dict[Key, Any]]] = []
        for stage in stages.trunk:
            if stage.copies is None:
                values = [
                    copy_of(tensors[k]) if k in stage.floating else tensors[k]
                    for k in stage.inputs
                ]
            else:
                values = stage.copies()
            made = dict(zip(stage.outputs, stage.run(x, values), strict=True))
            tensors.update(made)
            self.of_stages.append((dict(zip(stage.inputs, values, strict=True)), made))
        self._inputs = stages.heads.inputs
        self._copies = [
            head_copy(item, tensors[item.key], copy_of) for item in self._inputs
        ]
        self.y_pred = stages.heads.run(self._copies)

    @property
    def differentiable_copies(self) -> list[Any]:
        """The copies that heads have read and whose gradients are wanted."""
        return [c for i, c in zip(self._inputs, self._copies, strict=True) if i.tasks]

    def spread(self, gradients: Sequence[Any]) -> list[Any]:
        """Returns the gradients by those copies, with None for the other copies."""
        found = iter(gradients)
        return [next(found) if item.tasks else None for item in self._inputs]


def head_copy(item: HeadInput, tensor: Any, copy_of: Callable[[Any], Any]) -> Any:
    """Returns the copy of a tensor that heads read."""
    if item.repeated:
        shape = (len(item.tasks), *ops.shape(tensor))
        copy = ops.broadcast_to(ops.expand_dims(tensor, 0), shape)
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            copy._keras_mask = mask
        return copy
    return copy_of(tensor) if item.tasks else tensor
