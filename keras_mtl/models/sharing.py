"""Which parameters serve which tasks, read off the functional graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_mtl.engine.gradient_plan import GradientPlan, LayerUse


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


@dataclass(frozen=True)
class SharedLayer:
    """A layer whose trainable variables serve two tasks or more.

    Attributes:
        name: Its name, behind those of the layers that it is a part of.
        tasks: Names of the tasks that it serves.
        positions: Those of its variables in `trainable_variables` of the model.
    """

    name: str
    tasks: tuple[str, ...]
    positions: tuple[int, ...]


def shared_layers(
    uses: Sequence[LayerUse],
    variables: Sequence[keras.Variable],
    plan: GradientPlan,
    task_names: Sequence[str],
) -> list[SharedLayer]:
    """Returns the layers that tasks share, those of layers of layers one by one.

    They are in the order of the graph, from the input on, or in that of `layer_tasks`.

    Args:
        uses: Layers with the tasks that they serve.
        variables: The trainable variables of the model.
        plan: The same variables by whom they serve.
        task_names: The tasks that are trained.
    """
    places = {id(variables[p]): p for p in plan.shared}
    found: dict[tuple[int, str, tuple[int, ...]], list[int]] = {}
    for use in uses:
        for variable in use.layer.trainable_variables:
            place = places.pop(id(variable), None)  # Once, where layers share it.
            if place is not None:
                name = variable.path.rpartition("/")[0] or use.layer.name
                key = id(use.layer), name, plan.shared[place]
                found.setdefault(key, []).append(place)
    return [
        SharedLayer(name, tuple(task_names[t] for t in tasks), tuple(positions))
        for (_, name, tasks), positions in found.items()
    ]


def uses_in_graph(
    model: keras.Model, outputs: dict[str, keras.KerasTensor]
) -> list[LayerUse]:
    """Returns each layer of a functional model with the tasks that it serves.

    A layer serves a task if the task's output depends on it in the graph. One that has
    parts (`task_parts`) is taken apart.

    Args:
        model: Functional model.
        outputs: Output tensor of each task.
    """
    behind = {t: _layers_behind(tensor) for t, tensor in outputs.items()}
    keys = set().union(*behind.values())
    found = []
    for layer in model.layers:
        by_output = {
            output: tuple(t for t in outputs if (id(layer), output) in behind[t])
            for i, output in keys
            if i == id(layer) and output is not None
        }
        # Parameters for each output are parameters for each task only if no output
        # goes on to a second one; with one output, its rows tell the tasks apart.
        apart = len(by_output) < 2 or all(len(t) < 2 for t in by_output.values())
        rest = {id(weight) for weight in layer.weights}
        parts = parts_of(layer)
        for part, names in parts:
            there = by_output if names is None else names
            served = {t for name in there for t in by_output.get(name, ())}
            tasks = tuple(t for t in outputs if t in served)
            found.append(LayerUse(part, tasks, apart and is_stacked(part)))
            rest -= {id(weight) for weight in part.weights}
        if rest or not parts:
            tasks = tuple(t for t in outputs if (id(layer), None) in behind[t])
            found.append(LayerUse(layer, tasks, apart and is_stacked(layer)))
    return found


def uses_of_pairs(
    pairs: Sequence[tuple[keras.layers.Layer, Sequence[str]]],
) -> list[LayerUse]:
    """Returns layers that a subclassed model has named with the tasks they serve."""
    found = []
    for layer, tasks in pairs:
        parts = parts_of(layer)
        for part, names in parts:
            served = tuple(t for t in tasks if names is None or t in names)
            found.append(LayerUse(part, served, is_stacked(part)))
        if not parts:
            found.append(LayerUse(layer, tuple(tasks), is_stacked(layer)))
    return found


def parts_of(
    layer: keras.layers.Layer,
) -> list[tuple[keras.layers.Layer, Sequence[str] | None]]:
    """Returns the parts of a layer, each with the outputs that depend on it."""
    parts = getattr(layer, "task_parts", None)
    return [] if parts is None else parts()


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
        task: frozenset(inputs[i] for i, _ in _layers_behind(tensor) if i in inputs)
        for task, tensor in outputs.items()
    }


def _layers_behind(
    tensor: keras.KerasTensor,
) -> set[tuple[int, str | int | None]]:
    """Returns the ids of the layers that a tensor of the graph depends on.

    Each comes with None and with the outputs that it depends on: their places, or
    their names if the layer has parts.

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
        node = layer._inbound_nodes[node_index]
        output = tensor_index
        if parts_of(layer):
            output = layer.output_names(node.arguments.args[0])[tensor_index]
        found.update({(id(layer), None), (id(layer), output)})
        waiting.extend(tensors_behind(node, tensor_index))
    return found


def tensors_behind(node: Any, index: int) -> list[keras.KerasTensor]:
    """Returns the inputs of a node of the graph that one of its outputs trains.

    All of them, unless the layer says otherwise: by `inputs_behind`, or by
    `keeps_tasks_apart`, where the outputs of a task are made of its input alone.
    """
    tensors = node.input_tensors
    inputs_behind = getattr(node.operation, "inputs_behind", None)
    if inputs_behind is not None:
        return [tensors[i] for i in inputs_behind(node.arguments.args[0], index)]
    if getattr(node.operation, "keeps_tasks_apart", False):
        return [tensors[index // (len(node.output_tensors) // len(tensors))]]
    return list(tensors)


def is_stacked(layer: keras.layers.Layer) -> bool:
    """Whether a layer that serves several tasks holds parameters for each."""
    return bool(getattr(layer, "stacked_by_task", False))


def sharing_rows(uses: Sequence[LayerUse]) -> list[LayerSharing]:
    """Returns one row a layer that has parameters."""
    return [
        LayerSharing(use.layer.name, use.layer.count_params(), use.tasks, use.kind)
        for use in uses
        if use.layer.weights
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
