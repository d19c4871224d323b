"""Which parameters serve which tasks, read off the functional graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class LayerSharing:
    """A layer and the tasks that it serves.

    Attributes:
        layer: Name of the layer.
        parameters: Number of its parameters, frozen ones included.
        tasks: Names of the tasks that it serves.
        kind: "shared" by two tasks or more; "private" to one; "stacked", a layer
            that serves several tasks with parameters of its own for each; or
            "unused" by any task.
    """

    layer: str
    parameters: int
    tasks: tuple[str, ...]
    kind: str


def layers_of_tasks(
    model: keras.Model, outputs: dict[str, keras.KerasTensor]
) -> list[tuple[keras.layers.Layer, tuple[str, ...]]]:
    """Returns each layer of a functional model with the tasks that it serves.

    A layer serves a task if the task's output depends on it in the graph.

    Args:
        model: Functional model.
        outputs: Output tensor of each task.
    """
    behind = {id(tensor): _layers_behind(tensor) for tensor in outputs.values()}
    return [
        (layer, tuple(t for t in outputs if id(layer) in behind[id(outputs[t])]))
        for layer in model.layers
    ]


def inputs_of_tasks(
    model: keras.Model, outputs: dict[str, keras.KerasTensor]
) -> dict[str, frozenset[str]]:
    """Returns by task the names of the inputs that its rows come from."""
    inputs = {
        id(layer): layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.InputLayer)
    }
    return {
        task: frozenset(inputs[i] for i in _layers_behind(tensor) if i in inputs)
        for task, tensor in outputs.items()
    }


def _layers_behind(tensor: keras.KerasTensor) -> set[int]:
    """Returns the ids of the layers that a tensor of the graph depends on.

    The graph of Keras has no public reader. What is read here, the history of a
    tensor and the nodes of a layer, is what Keras itself walks on.
    """
    found, seen, waiting = set(), set(), [tensor]
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        layer, node_index, tensor_index = tensor._keras_history
        found.add(id(layer))
        node = layer._inbound_nodes[node_index]
        inputs = node.input_tensors
        if getattr(layer, "keeps_tasks_apart", False):
            # The outputs of a task are made of the rows of its input alone.
            outputs_per_task = len(node.output_tensors) // len(inputs)
            inputs = [inputs[tensor_index // outputs_per_task]]
        waiting.extend(inputs)
    return found


def is_stacked(layer: keras.layers.Layer) -> bool:
    """Whether a layer that serves several tasks holds parameters for each."""
    return bool(getattr(layer, "stacked_by_task", False))


def sharing_kind(layer: keras.layers.Layer, tasks: Sequence[str]) -> str:
    """Returns the kind of sharing, as `LayerSharing.kind`."""
    if not tasks:
        return "unused"
    if len(tasks) == 1:
        return "private"
    return "stacked" if is_stacked(layer) else "shared"


def sharing_rows(
    layer_tasks: Sequence[tuple[keras.layers.Layer, Sequence[str]]],
) -> list[LayerSharing]:
    """Returns one row a layer that has parameters."""
    return [
        LayerSharing(
            layer.name, layer.count_params(), tuple(tasks), sharing_kind(layer, tasks)
        )
        for layer, tasks in layer_tasks
        if layer.weights
    ]


def print_sharing(
    rows: Sequence[LayerSharing],
    num_tasks: int,
    print_fn: Callable[[str], None] | None = None,
) -> None:
    """Prints rows as a table, with the parameters of each kind below."""
    print_fn = print_fn or print
    table = [("layer", "parameters", "kind", "tasks")]
    for row in rows:
        tasks = "all" if len(row.tasks) == num_tasks > 3 else ", ".join(row.tasks)
        table.append((row.layer, f"{row.parameters:,}", row.kind, tasks or "none"))
    widths = [max(len(line[column]) for line in table) for column in range(3)]
    for name, parameters, kind, tasks in table:
        print_fn(
            f"{name:<{widths[0]}}  {parameters:>{widths[1]}}  "
            f"{kind:<{widths[2]}}  {tasks}"
        )
    totals = {}
    for row in rows:
        totals[row.kind] = totals.get(row.kind, 0) + row.parameters
    print_fn("total: " + ", ".join(f"{n:,} {kind}" for kind, n in totals.items()))
