"""Cuts a model where its tasks part, for the steps of aggregators."""

import collections
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras

from keras_mtl import engine
from keras_mtl.engine.packing import exchanged
from keras_mtl.engine.stages import HeadInput, Heads, Stage, Stages
from keras_mtl.models.graph_part import GraphPart, NodeGroup, layers_of
from keras_mtl.models.sharing import tensors_behind, uses_of_pairs


def stages_of_graph(
    model: keras.Model,
    outputs: Mapping[str, keras.KerasTensor],
    task_names: Sequence[str],
    shared: Collection[int],
) -> Stages:
    """Cuts a functional model into stages.

    The trunk is made of the nodes of the graph that serve several tasks, and of those
    that come before one that does; its nodes are grouped by the tasks that they
    serve. The heads are the rest.

    Args:
        model: The model.
        outputs: Output tensor of each task, those that are not trained among them.
        task_names: The tasks that are trained.
        shared: Ids of the variables that several of them share.
    """
    graph = _Graph(outputs, task_names, shared)
    entry = keras.Model(model.input, list(model.inputs))
    keys = [id(tensor) for tensor in model.inputs]

    def enter(x):
        values = entry(x)
        values = values if isinstance(values, list | tuple) else [values]
        return dict(zip(keys, values, strict=True))

    trunk = graph.trunk_stages()
    return Stages(enter, trunk, graph.heads(trunk))


def stages_of_call(
    model: keras.Model,
    variables: Callable[[], list[Any]],
    task_names: Sequence[str],
    by_rows: bool,
) -> Stages:
    """Returns a model whose graph is not known as one stage and heads without layers.

    Args:
        model: The model.
        variables: Returns the trainable variables that its predictions depend on.
        task_names: The tasks that are trained.
        by_rows: Whether its one output has rows of all tasks.
    """
    predictions = _Predictions(task_names, by_rows)
    stage = Stage(
        run=lambda x, values: predictions.split(model(x, training=True)),
        inputs=(),
        outputs=predictions.keys,
        tasks=tuple(range(len(task_names))),
        variables=variables,
    )
    return Stages(lambda x: {}, (stage,), predictions.heads())


def stages_round_layer(
    model: keras.Model,
    variables: Callable[[], list[Any]],
    layer: keras.layers.Layer,
    task_names: Sequence[str],
) -> Stages:
    """Cuts a model whose graph is not known at the output of a layer.

    Args:
        model: The model.
        variables: Returns the trainable variables that its predictions depend on.
        layer: The layer whose output all tasks read.
        task_names: The tasks that are trained.
    """
    predictions = _Predictions(task_names)
    tasks = tuple(range(len(task_names)))
    key = len(task_names)
    cut = _CutCall(model, layer)
    before = Stage(
        run=lambda x, values: [cut.run(x, engine.copy_of)],
        inputs=(),
        outputs=(key,),
        tasks=tasks,
        variables=variables,
        parting=(key,),
    )
    after = Stage(
        run=lambda x, values: predictions.split(cut.predictions_from(x, values[0])),
        inputs=(key,),
        outputs=predictions.keys,
        tasks=tasks,
        variables=variables,
        floating=(key,),
        copies=lambda: [cut.copy],
        again=True,
    )
    return Stages(lambda x: {}, (before, after), predictions.heads())


class _Predictions:
    """Takes predictions apart into those of trained tasks and a nest of the others."""

    def __init__(self, task_names: Sequence[str], by_rows: bool = False) -> None:
        self.task_names = list(task_names)
        self.by_rows = by_rows
        self.keys = (0,) if by_rows else (*range(len(self.task_names)), -1)

    def split(self, predictions: Any) -> list[Any]:
        if self.by_rows:
            return [predictions]
        missing = [name for name in self.task_names if name not in predictions]
        if missing:
            raise ValueError(
                f"The model returned nothing for tasks {missing}. "
                f"Received: outputs {sorted(predictions)}"
            )
        others = {k: v for k, v in predictions.items() if k not in self.task_names}
        return [*(predictions[name] for name in self.task_names), others]

    def heads(self) -> Heads:
        if self.by_rows:
            tasks = tuple(range(len(self.task_names)))
            return Heads(lambda copies: copies[0], (HeadInput(0, tasks, rows=True),))
        inputs = [HeadInput(task, (task,)) for task in range(len(self.task_names))]

        def run(copies):
            return {**copies[-1], **dict(zip(self.task_names, copies, strict=False))}

        return Heads(run, (*inputs, HeadInput(-1)))


class _CutCall:
    """Runs a model and takes hold of the output of one of its layers."""

    def __init__(self, model: Any, layer: keras.layers.Layer) -> None:
        self.model = model
        self.layer = layer
        self.copy = None
        self.predictions = None

    def run(self, x: Any, exchange: Callable[[Any], Any]) -> Any:
        """Runs the model, and returns the output of the layer.

        Args:
            x: Inputs of the model.
            exchange: Returns what the rest of the model is given in its place.
        """
        outputs, late = [], []
        call = self.layer.call

        def cut(*args, **kwargs):
            output = call(*args, **kwargs)
            outputs.append(output)
            self.copy = exchange(output)
            return self.copy

        def noting(layer):
            original = layer.call

            def note(*args, **kwargs):
                if outputs:
                    late.append(layer.name)
                return original(*args, **kwargs)

            return note

        shared = [
            use.layer
            for use in uses_of_pairs(self.model.layer_tasks())
            if use.kind == "shared"
            and use.layer is not self.layer
            and use.layer.trainable_variables
        ]
        with contextlib.ExitStack() as stack:
            stack.enter_context(exchanged(self.layer, "call", cut))
            for layer in shared:
                stack.enter_context(exchanged(layer, "call", noting(layer)))
            self.predictions = self.model(x, training=True)
        if len(outputs) != 1 or keras.tree.is_nested(outputs[0]):
            raise ValueError(
                "`aggregate_at` must name a layer that the model calls once and that "
                f"returns one tensor. Received: aggregate_at={self.layer.name!r}, "
                f"which is called {len(outputs)} times"
            )
        if late:
            raise ValueError(
                f"All that tasks share must come before `aggregate_at`. Received: "
                f"aggregate_at={self.layer.name!r}, after which the shared layers "
                f"{late} are called"
            )
        return outputs[0]

    def predictions_from(self, x: Any, value: Any) -> Any:
        """Returns what the model makes of an output of the layer."""
        if value is not self.copy:
            self.run(x, lambda output: value)
        predictions, self.predictions, self.copy = self.predictions, None, None
        return predictions


class _Graph:
    """The nodes behind the outputs of a functional model, and whom they serve.

    Keras has no public reader of its graph: read here are the history of a tensor,
    the nodes of an operation, and the arguments of a node.
    """

    def __init__(
        self,
        outputs: Mapping[str, keras.KerasTensor],
        task_names: Sequence[str],
        shared: Collection[int],
    ) -> None:
        self.outputs = dict(outputs)
        self.task_names = list(task_names)
        self.shared = set(shared)
        self.nodes = _sorted_nodes(self.outputs.values())
        self.maker = {id(t): node for node in self.nodes for t in node.outputs}
        self.readers: dict[int, list[Any]] = {}
        for node in self.nodes:
            for tensor in node.input_tensors:
                self.readers.setdefault(id(tensor), []).append(node)
        self.served = self._served()
        self.tasks = {id(node): self._tasks_of(node.outputs) for node in self.nodes}
        self.repeatable = {id(node) for node in self.nodes if self._is_repeatable(node)}
        self.in_trunk = self._find_trunk()
        self.users = collections.Counter(
            id(variable)
            for layer in layers_of(self.nodes)
            for variable in layer.trainable_variables
        )
        self.calls = collections.Counter(id(node.operation) for node in self.nodes)

    def _served(self) -> dict[int, set[int]]:
        """By tensor, the trained tasks whose outputs depend on it."""
        served: dict[int, set[int]] = {}
        for name, tensor in self.outputs.items():
            tasks = {self.task_names.index(name)} if name in self.task_names else set()
            served.setdefault(id(tensor), set()).update(tasks)
        for node in reversed(self.nodes):
            for index, output in enumerate(node.outputs):
                for tensor in tensors_behind(node, index):
                    served.setdefault(id(tensor), set()).update(
                        served.get(id(output), ())
                    )
        return served

    def _tasks_of(self, tensors: Sequence[Any]) -> frozenset[int]:
        return frozenset(t for x in tensors for t in self.served.get(id(x), ()))

    def _is_repeatable(self, node: Any) -> bool:
        """Whether a layer's input can come once for each of its tasks."""
        return (
            getattr(node.operation, "takes_repeated", False)
            and len(node.input_tensors) == 1
            and all(len(self.served.get(id(t), ())) <= 1 for t in node.outputs)
        )

    def _find_trunk(self) -> set[int]:
        """Ids of the nodes that serve several tasks, and of those before them."""
        found: set[int] = set()
        for node in reversed(self.nodes):
            if node.is_input:
                continue
            readers = [r for t in node.outputs for r in self.readers.get(id(t), ())]
            before = any(id(reader) in found for reader in readers)
            several = len(self.tasks[id(node)]) > 1 and id(node) not in self.repeatable
            if before or several or self._holds_shared(node.operation):
                found.add(id(node))
        return found

    def _holds_shared(self, operation: Any) -> bool:
        variables = getattr(operation, "trainable_variables", ())
        return any(id(variable) in self.shared for variable in variables)

    def trunk_stages(self) -> tuple[Stage, ...]:
        """Groups the nodes of the trunk by the tasks that they serve."""
        depth: dict[int, int] = {}
        groups: dict[tuple[int, tuple[int, ...]], list[Any]] = {}
        for node in self.nodes:
            if id(node) not in self.in_trunk:
                continue
            tasks = self.tasks[id(node)]
            makers = [self.maker[id(tensor)] for tensor in node.input_tensors]
            depth[id(node)] = max(
                (
                    depth[id(maker)] + (self.tasks[id(maker)] != tasks)
                    for maker in makers
                    if id(maker) in depth
                ),
                default=0,
            )
            key = depth[id(node)], tuple(sorted(tasks))
            groups.setdefault(key, []).append(node)
        stages: list[Stage] = []
        for (_, tasks), nodes in sorted(groups.items(), key=lambda item: item[0]):
            made = {key for stage in stages for key in stage.outputs}
            stages.append(self._stage(nodes, tasks, made))
        return tuple(stages)

    def _stage(
        self, nodes: Sequence[Any], tasks: tuple[int, ...], made: set[int]
    ) -> Stage:
        inside = {id(node) for node in nodes}
        inputs = self._inputs_of(nodes)
        outputs, parting = {}, []
        predictions = {id(tensor) for tensor in self.outputs.values()}
        for node in nodes:
            for tensor in node.outputs:
                readers = self.readers.get(id(tensor), ())
                outside = [r for r in readers if id(r) not in inside]
                if not outside and id(tensor) not in predictions:
                    continue
                outputs[id(tensor)] = tensor
                parts = id(tensor) in predictions or any(
                    self.tasks[id(r)] != set(tasks) or id(r) not in self.in_trunk
                    for r in outside
                )
                if parts and len(tasks) > 1 and _is_floating(tensor):
                    parting.append(id(tensor))
        group = NodeGroup(tuple(nodes), {key: i for i, key in enumerate(inputs)})
        part = GraphPart([group], [(key, 0) for key in outputs])
        dense = [node for node in nodes if self._is_plain_dense(node)]
        read = [id(node.input_tensors[0]) for node in dense]
        watched = GraphPart([group], [(key, 0) for key in (*outputs, *read)])

        def run_watched(x, values):
            made = watched(values, training=True)
            return made[: len(outputs)], made[len(outputs) :]

        return Stage(
            run=lambda x, values: part(values, training=True),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            tasks=tasks,
            variables=_variables_of(layers_of(nodes)),
            floating=tuple(
                k for k, t in inputs.items() if k in made and _is_floating(t)
            ),
            parting=tuple(parting),
            dense=tuple(node.operation for node in dense),
            run_watched=run_watched,
        )

    def _is_plain_dense(self, node: Any) -> bool:
        """Whether a node is the one use of a kernel and a bias, on a matrix."""
        layer = node.operation
        return (
            type(layer) is keras.layers.Dense
            and layer.use_bias
            and len(layer.trainable_variables) == 2
            and self.calls[id(layer)] == 1
            and all(self.users[id(v)] == 1 for v in layer.trainable_variables)
            and len(node.input_tensors[0].shape) == 2
        )

    def _inputs_of(self, nodes: Sequence[Any]) -> dict[int, Any]:
        """Tensors that nodes read and do not make, by id."""
        made = {id(tensor) for node in nodes for tensor in node.outputs}
        return {
            id(tensor): tensor
            for node in nodes
            for tensor in node.input_tensors
            if id(tensor) not in made
        }

    def heads(self, trunk: Sequence[Stage]) -> Heads:
        """Groups the nodes of the heads by task; each group reads copies of its own."""
        from_trunk = {key for stage in trunk for key in stage.outputs}
        mine = [n for n in self.nodes if not n.is_input and id(n) not in self.in_trunk]
        made_here = {id(tensor) for node in mine for tensor in node.outputs}
        inputs: list[HeadInput] = []
        groups: list[NodeGroup] = []
        outputs: dict[str, tuple[int, int]] = {}

        def add(nodes, tensors, tasks, repeated=False):
            positions = {}
            for key, tensor in tensors.items():
                if key in made_here:
                    continue
                differentiable = key in from_trunk and _is_floating(tensor)
                positions[key] = len(inputs)
                inputs.append(HeadInput(key, tasks if differentiable else (), repeated))
            groups.append(NodeGroup(tuple(nodes), positions, repeated))

        rest = []
        for node in mine:
            if id(node) in self.repeatable and len(self.tasks[id(node)]) > 1:
                tasks = tuple(
                    next(iter(self.served.get(id(tensor), ())), None)
                    for tensor in node.outputs
                )
                add([node], self._inputs_of([node]), tasks, repeated=True)
            else:
                rest.append(node)
        for task in [*range(len(self.task_names)), None]:
            wanted = frozenset() if task is None else frozenset({task})
            nodes = [node for node in rest if self.tasks[id(node)] == wanted]
            tensors = self._inputs_of(nodes)
            for name, tensor in self.outputs.items():
                index = self.task_names.index(name) if name in self.task_names else None
                if index == task:
                    outputs[name] = id(tensor), len(groups)
                    tensors.setdefault(id(tensor), tensor)
            tensors = {
                key: tensor
                for key, tensor in tensors.items()
                if key not in {id(t) for node in nodes for t in node.outputs}
            }
            add(nodes, tensors, () if task is None else (task,))
        names = list(self.outputs)
        part = GraphPart(groups, [outputs[name] for name in names])

        def run(copies):
            return dict(zip(names, part(copies, training=True), strict=True))

        return Heads(run, tuple(inputs), _variables_of(layers_of(mine)))


def _sorted_nodes(tensors: Any) -> list[Any]:
    """Returns the nodes behind tensors, each after those that it reads."""
    found: dict[int, Any] = {}
    waiting = [(tensor, False) for tensor in tensors]
    entered: set[int] = set()
    while waiting:
        tensor, done = waiting.pop()
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        if done:
            found.setdefault(id(node), node)
        elif id(node) not in entered:
            entered.add(id(node))
            waiting.append((tensor, True))
            waiting.extend((parent, False) for parent in node.input_tensors)
    return list(found.values())


def _variables_of(
    layers: Sequence[keras.layers.Layer],
) -> Callable[[], list[Any]]:
    return lambda: [v for layer in layers for v in layer.trainable_variables]


def _is_floating(tensor: keras.KerasTensor) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
