"""Nodes of a functional graph that run as one layer."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that are run in order, on inputs of their own.

    Attributes:
        nodes: The nodes of the graph.
        inputs: For each tensor that comes from outside, its id and its position among
            the inputs of the part.
        repeated: Whether the node is a layer with parameters for each task, and its
            input comes once for each.
    """

    nodes: tuple[Any, ...]
    inputs: Mapping[int, int]
    repeated: bool = False


class GraphPart(keras.layers.Layer):
    """Runs nodes of a functional graph, as the functional model does.

    A layer, so that the layers in it see that they are training. (A `keras.Model`
    from tensors in the middle of a graph would clone the nodes, and cost a call of a
    model for each head.)

    Args:
        groups: Groups of nodes. Each sees its own inputs, and what groups before it
            have made.
        outputs: Ids of the tensors to return, each with the group that knows it.
    """

    def __init__(
        self, groups: Sequence[NodeGroup], outputs: Sequence[tuple[int, int]]
    ) -> None:
        super().__init__(autocast=False)
        self.supports_masking = True
        self._plan = _Plan(tuple(groups), tuple(outputs))
        # Keras clears the losses of the layers in a layer when that is called.
        self.parts = list(layers_of(node for group in groups for node in group.nodes))

    def call(self, values: list[Any], training: bool | None = None) -> list[Any]:
        """Returns the output tensors."""
        made: dict[int, Any] = {}
        by_group = []
        for group in self._plan.groups:
            own = {key: values[index] for key, index in group.inputs.items()}
            by_group.append(own)
            known = ChainMap(own, made)
            for node in group.nodes:
                args, kwargs = node.arguments.fill_in(known)
                if isinstance(node.operation, keras.layers.Layer):
                    # As in a functional model, it is the call that says so.
                    kwargs.pop("training", None)
                if group.repeated:
                    kwargs["repeated"] = True
                outputs = keras.tree.flatten(node.operation(*args, **kwargs))
                for tensor, value in zip(node.outputs, outputs, strict=True):
                    made[id(tensor)] = value
        return [
            made[key] if key in made else by_group[group][key]
            for key, group in self._plan.outputs
        ]

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Returns None: the outputs have the masks that their layers gave them."""
        return None


@dataclass(frozen=True)
class _Plan:
    """A plain object, which Keras does not look into."""

    groups: tuple[NodeGroup, ...]
    outputs: tuple[tuple[int, int], ...]


def layers_of(nodes: Any) -> tuple[keras.layers.Layer, ...]:
    """Returns the layers of nodes, each once."""
    found = {id(node.operation): node.operation for node in nodes}
    return tuple(op for op in found.values() if isinstance(op, keras.layers.Layer))
