"""Whole models of several tasks round a trunk of the user's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_mtl.layers import (
    CrossStitch,
    MixtureOfExperts,
    MultiHead,
    ProgressiveLayeredExtraction,
    TaskAttention,
)
from keras_mtl.layers.independent_initializers import with_seeds_of_its_own
from keras_mtl.models.multi_task_model import MultiTaskModel

Head = keras.layers.Layer | Sequence[keras.layers.Layer] | Callable[[Any], Any]
Heads = Mapping[str, Head] | MultiHead


def hard_sharing(
    trunk: keras.Model | keras.KerasTensor,
    heads: Heads,
    name: str | None = None,
) -> MultiTaskModel:
    """Returns a model whose tasks share a trunk and have a head each.

    $$ y_t = h_t(f(x)) $$

    Args:
        trunk: A functional or sequential model with one output, such as one of
            `keras.applications` without its top; or an input or another tensor of a
            graph, which the heads read.
        heads: Dict by task: a layer or model, a list of layers that follow each
            other, or a function from tensor to tensor. Or a `layers.MultiHead`, which
            is the head of all tasks and much faster where they are many.
        name: String, optional. Name of the model.

    Raises:
        ValueError: If the trunk has several outputs or no graph, or `heads` is empty
            or has a layer twice.

    Example:

    ```python
    trunk = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, "relu")])
    model = keras_mtl.models.hard_sharing(
        trunk,
        {
            "income": keras.layers.Dense(1, "sigmoid"),
            "hours": [keras.layers.Dense(8, "relu"), keras.layers.Dense(1)],
        },
    )
    model.compile("adam", loss={"income": "binary_crossentropy", "hours": "mse"})
    ```

    Reference:
        Caruana, "Multitask Learning", Machine Learning 28, 1997,
        https://doi.org/10.1023/A:1007379606734
    """
    inputs, features = _ends(trunk)
    if not isinstance(heads, MultiHead):
        features = dict.fromkeys(_names(heads), features)
    return with_heads(inputs, features, heads, name)


def mixture_of_experts(
    trunk: keras.Model | keras.KerasTensor,
    heads: Heads,
    experts: int | Sequence[keras.layers.Layer] = 8,
    units: int | Sequence[int] | None = None,
    name: str | None = None,
    **arguments: Any,
) -> MultiTaskModel:
    """Returns a model with a mixture of experts between trunk and heads (MMoE).

    Args:
        trunk: As in `hard_sharing`.
        heads: As in `hard_sharing`.
        experts: Number of dense experts, or a list of layers. Defaults to 8.
        units: Sizes of dense experts. Defaults to `None`: 64 for a number of experts.
        name: String, optional. Name of the model.
        **arguments: Further arguments of `layers.MixtureOfExperts`.

    Raises:
        ValueError: As `hard_sharing` and `layers.MixtureOfExperts`.

    Example:

    ```python
    model = keras_mtl.models.mixture_of_experts(
        keras.Input((16,)),
        {"click": keras.layers.Dense(1, "sigmoid"), "rating": keras.layers.Dense(1)},
        experts=4,
        gate=keras_mtl.layers.SoftmaxGate(dropout=0.1),
    )
    ```

    Reference:
        Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007
    """
    inputs, features = _ends(trunk)
    if units is None and not isinstance(experts, list | tuple):
        units = 64
    if isinstance(heads, MultiHead):
        arguments["heads"] = heads
    layer = MixtureOfExperts(experts, _names(heads), units, **arguments)
    if isinstance(heads, MultiHead):
        return MultiTaskModel(inputs, layer(features), name=name)
    return with_heads(inputs, layer(features), heads, name)


def progressive_layered_extraction(
    trunk: keras.Model | keras.KerasTensor,
    heads: Heads,
    units: Sequence[int | Sequence[int]] = (64, 64),
    name: str | None = None,
    **arguments: Any,
) -> MultiTaskModel:
    """Returns a model with levels of experts between trunk and heads (PLE).

    Args:
        trunk: As in `hard_sharing`.
        heads: As in `hard_sharing`.
        units: The size of the experts of each level. Defaults to two levels of 64.
        name: String, optional. Name of the model.
        **arguments: Further arguments of `layers.ProgressiveLayeredExtraction`.

    Raises:
        ValueError: As `hard_sharing` and `layers.ProgressiveLayeredExtraction`.

    Example:

    ```python
    model = keras_mtl.models.progressive_layered_extraction(
        keras.Input((16,)),
        {"click": keras.layers.Dense(1, "sigmoid"), "rating": keras.layers.Dense(1)},
        units=[32, 16],
        task_experts=2,
    )
    ```

    Reference:
        Tang et al., RecSys 2020, https://doi.org/10.1145/3383313.3412236
    """
    inputs, features = _ends(trunk)
    layer = ProgressiveLayeredExtraction(_names(heads), list(units), **arguments)
    return with_heads(inputs, layer(features), heads, name)


def task_attention(
    trunk: keras.Model,
    heads: Heads,
    blocks: Sequence[tuple[str, str]],
    name: str | None = None,
    **arguments: Any,
) -> MultiTaskModel:
    """Returns a model whose tasks attend to the features of a shared trunk (MTAN).

    The heads read what the attention of the last block picks.

    Args:
        trunk: A functional or sequential model.
        heads: As in `hard_sharing`.
        blocks: For each block the names of two layers of the trunk: that of the first
            and that of the last features, whose inner axes are the same. They may be
            one layer.
        name: String, optional. Name of the model.
        **arguments: Further arguments of each `layers.TaskAttention`.

    Raises:
        ValueError: As `hard_sharing` and `layers.TaskAttention`, or if the trunk has
            no layer of a name.

    Example:

    ```python
    trunk = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="u1"),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="p1"),
            keras.layers.MaxPooling2D(name="u2"),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="p2"),
        ]
    )
    model = keras_mtl.models.task_attention(
        trunk,
        {
            "depth": keras.layers.Conv2D(1, 1),
            "segments": keras.layers.Conv2D(5, 1, activation="softmax"),
        },
        blocks=[("u1", "p1"), ("u2", "p2")],
    )
    assert model.output["depth"].shape == (None, 8, 8, 1)
    ```

    Reference:
        Liu et al., CVPR 2019, https://arxiv.org/abs/1803.10704
    """
    trunk = _as_functional(trunk)
    if isinstance(blocks, str) or not blocks:
        raise ValueError(
            "`blocks` must be a list of pairs of names of layers. "
            f"Received: blocks={blocks!r}"
        )
    names, features = _names(heads), None
    for first, last in blocks:
        pair = [_node_of(trunk, layer).outputs[0] for layer in (first, last)]
        layer = TaskAttention(names, **arguments)
        features = layer(pair, previous=features)
    return with_heads(trunk.input, features, heads, name)


def cross_stitch(
    trunk: keras.Model,
    heads: Heads,
    at: Sequence[str] | None = None,
    own: float = 0.9,
    per_channel: bool = False,
    copy_weights: bool = True,
    name: str | None = None,
) -> MultiTaskModel:
    """Returns a model with a copy of a trunk for each task, stitched to each other.

    Args:
        trunk: A functional or sequential model with one output. It is left as it is.
        heads: As in `hard_sharing`.
        at: Names of the layers after which features are stitched. Defaults to `None`,
            the last layer of the trunk.
        own: Initial weight of a task's own features. Defaults to 0.9.
        per_channel: Whether every channel has a matrix of its own. Defaults to
            `False`.
        copy_weights: Whether all copies start with the weights of the trunk, as for
            one that is trained, or with weights of their own. Defaults to `True`.
        name: String, optional. Name of the model.

    Raises:
        ValueError: As `hard_sharing`, or if the trunk has no layer of a name.

    Example:

    ```python
    trunk = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(32, "relu", name="lower"),
            keras.layers.Dense(16, "relu", name="upper"),
        ]
    )
    model = keras_mtl.models.cross_stitch(
        trunk,
        {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)},
        at=["lower", "upper"],
        copy_weights=False,
    )
    ```

    Reference:
        Misra et al., CVPR 2016, https://arxiv.org/abs/1604.03539
    """
    trunk = _as_functional(trunk)
    inputs, _ = _ends(trunk)
    names = _names(heads)
    operation, node_index, _ = trunk.output._keras_history
    ends = [operation._inbound_nodes[node_index]]
    if at is not None:
        ends = [_node_of(trunk, layer) for layer in at]
    copies: dict[tuple[str, int], keras.layers.Layer] = {}

    def copy_of(layer, task):
        if not isinstance(layer, keras.layers.Layer):
            return layer
        if (task, id(layer)) not in copies:
            config = with_seeds_of_its_own(layer.get_config(), names.index(task))
            config = {**config, "name": f"{layer.name}_{task}"}
            copies[task, id(layer)] = type(layer).from_config(config)
        return copies[task, id(layer)]

    known = {task: {id(t): t for t in trunk.inputs} for task in names}
    for node in _nodes_of(trunk):
        made = {}
        for task in names:
            arguments, keywords = node.arguments.fill_in(known[task])
            made[task] = copy_of(node.operation, task)(*arguments, **keywords)
        if any(node is end for end in ends):
            made = CrossStitch(
                names, own, per_channel, name=f"stitch_{node.operation.name}"
            )(made)
        for task in names:
            values = keras.tree.flatten(made[task])
            for tensor, value in zip(node.outputs, values, strict=True):
                known[task][id(tensor)] = value
    if copy_weights:
        for layer in trunk.layers:
            for task in names:
                if (task, id(layer)) in copies:
                    copies[task, id(layer)].set_weights(layer.get_weights())
    features = {task: known[task][id(trunk.output)] for task in names}
    return with_heads(inputs, features, heads, name)


def _ends(trunk: Any) -> tuple[Any, keras.KerasTensor]:
    """Returns the inputs of a trunk, and its output."""
    if isinstance(trunk, keras.KerasTensor):
        inputs = _inputs_behind(trunk)
        return (inputs[0] if len(inputs) == 1 else inputs), trunk
    trunk = _as_functional(trunk)
    if not isinstance(trunk.output, keras.KerasTensor):
        raise ValueError(
            f"`trunk` must have one output. Received: outputs {trunk.output!r}"
        )
    return trunk.input, trunk.output


def _as_functional(trunk: Any) -> keras.Model:
    """Returns the graph of a functional or sequential model, with its layers."""
    if isinstance(trunk, keras.Sequential) and trunk.built:
        return keras.Model(trunk.inputs[0], trunk.outputs[0])
    sequential = isinstance(trunk, keras.Sequential)
    if sequential or not isinstance(trunk, keras.Model) or not hasattr(trunk, "output"):
        raise ValueError(
            "`trunk` must be a functional or sequential model, built on inputs of a "
            f"known shape. Received: trunk={trunk!r}"
        )
    return trunk


def _inputs_behind(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Returns the inputs that a tensor of a graph depends on."""
    found, waiting, seen = {}, [tensor], set()
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        if node.is_input:
            found[id(tensor)] = tensor
        waiting.extend(node.input_tensors)
    return list(found.values())[::-1]


def _nodes_of(model: keras.Model) -> list[Any]:
    """Returns the nodes of a model's graph, each after those that it reads."""
    by_depth = model._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def _node_of(trunk: keras.Model, name: str) -> Any:
    """Returns where a trunk calls a layer or operation.

    Raises:
        ValueError: If it does so nowhere, or more than once.
    """
    nodes = [node for by in trunk._nodes_by_depth.values() for node in by]
    found = [node for node in nodes if node.operation.name == name]
    if not found:
        names = sorted({node.operation.name for node in nodes})
        raise ValueError(
            f"The trunk has no layer of this name, but {names}. Received: {name!r}"
        )
    if len(found) > 1:
        raise ValueError(
            "The trunk calls this layer more than once, so that its name does not say "
            "which output is meant: put another layer after that one, such as an "
            f"Identity. Received: {name!r}"
        )
    return found[0]


def _names(heads: Any) -> list[str]:
    if isinstance(heads, MultiHead):
        return heads.task_names
    if not isinstance(heads, Mapping) or not heads:
        raise ValueError(
            "`heads` must be a dict by task with one entry or more. "
            f"Received: heads={heads!r}"
        )
    layers = [
        layer
        for head in heads.values()
        for layer in (head if isinstance(head, list | tuple) else [head])
    ]
    of_keras = [layer for layer in layers if isinstance(layer, keras.layers.Layer)]
    if any(not callable(layer) for layer in layers):
        raise ValueError(
            "A head must be a layer, a list of layers or a function. "
            f"Received: heads={dict(heads)!r}"
        )
    if len({id(layer) for layer in of_keras}) < len(of_keras):
        raise ValueError(
            "A layer can be in one head alone: what tasks share belongs to the trunk. "
            f"Received: heads={dict(heads)!r}"
        )
    return list(heads)


def with_heads(
    inputs: Any, features: Any, heads: Heads, name: str | None
) -> MultiTaskModel:
    """Returns a model of what each head makes of the features of its task.

    Args:
        inputs: Inputs of the graph.
        features: Dict of tensors by task.
        heads: As in `hard_sharing`.
        name: Name of the model.
    """
    if isinstance(heads, MultiHead):
        return MultiTaskModel(inputs, heads(features), name=name)
    outputs = {}
    for task, head in heads.items():
        h = features[task]
        for layer in head if isinstance(head, list | tuple) else [head]:
            h = layer(h)
        outputs[task] = h
    return MultiTaskModel(inputs, outputs, name=name)
