"""How tasks share each block of a network, and the network that is made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_mtl.argument_checks import check_choice
from keras_mtl.layers import (
    CrossStitch,
    DSelectK,
    MixtureOfExperts,
    SoftmaxGate,
    SoftSharing,
)
from keras_mtl.layers.independent_initializers import with_seeds_of_its_own
from keras_mtl.models.architectures import with_heads
from keras_mtl.models.multi_task_model import MultiTaskModel
from keras_mtl.tuning.sharing_tree import SharingTree
from keras_mtl.tuning.width import with_width

COPIES, CROSS_STITCH, SOFT, EXPERTS = (
    "copies",
    "cross_stitch",
    "soft",
    "mixture_of_experts",
)
LINKS = (COPIES, CROSS_STITCH, SOFT, EXPERTS)
GATES = {"softmax": SoftmaxGate, "dselect_k": lambda: DSelectK(2)}

Block = keras.layers.Layer | Callable[..., keras.layers.Layer]


@dataclass(frozen=True)
class BlockSharing:
    """How the groups of tasks at one block are linked.

    Args:
        link: `"copies"`: each group has a copy of the block, and nothing else.
            `"cross_stitch"`: the features of the copies are mixed after it
            (`layers.CrossStitch`). `"soft"`: their parameters are pulled together
            (`layers.SoftSharing`). `"mixture_of_experts"`: experts, made as the block
            is, in place of copies, and a gate for each group
            (`layers.MixtureOfExperts`). Defaults to `"copies"`.
        options: Dict: for `"cross_stitch"` `own`, for `"soft"` `weight`, for
            `"mixture_of_experts"` `experts`, `width` and `gate`. Defaults to none.

    Raises:
        ValueError: If the link is none of these.
    """

    link: str = COPIES
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("link", self.link, LINKS)


@dataclass(frozen=True)
class SharingPlan:
    """A sharing architecture: a tree, and how the groups at each block are linked.

    Args:
        tree: A `SharingTree`.
        links: A `BlockSharing` for each block. Defaults to copies.

    Raises:
        ValueError: If `links` are more or fewer than the blocks of the tree.

    Example:

    ```python
    tree = keras_mtl.tuning.SharingTree.grouped([["a"], ["b"]], 2, shared_blocks=1)
    plan = keras_mtl.tuning.SharingPlan(tree)
    model = plan.build(
        keras.Input((8,)),
        [lambda: keras.layers.Dense(16, "relu")] * 2,
        {"a": keras.layers.Dense(1), "b": keras.layers.Dense(1)},
    )
    assert keras_mtl.tuning.sharing_tree(model) == tree
    ```
    """

    tree: SharingTree
    links: tuple[BlockSharing, ...] = ()

    def __post_init__(self) -> None:
        links = tuple(self.links) or (BlockSharing(),) * len(self.tree.levels)
        if len(links) != len(self.tree.levels):
            raise ValueError(
                f"`links` must be one for each of {len(self.tree.levels)} blocks. "
                f"Received: {len(links)}"
            )
        object.__setattr__(self, "links", links)

    def apply(
        self, features: Any, blocks: Sequence[Block], width: float = 1.0
    ) -> dict[str, Any]:
        """Returns for each task the features after the last block.

        Args:
            features: The tensor that the first block reads.
            blocks: For each block a layer, or a function that returns one. It is
                copied from its config, the copies are named after their tasks.
            width: Factor for the units or filters of all blocks.

        Raises:
            ValueError: If `blocks` are more or fewer than those of the tree.
        """
        if len(blocks) != len(self.links):
            raise ValueError(
                f"`blocks` must be one for each of {len(self.links)} blocks of the "
                f"plan. Received: {len(blocks)}"
            )
        after = dict.fromkeys(self.tree.tasks, features)
        for place, (groups, sharing, block) in enumerate(
            zip(self.tree.levels, self.links, blocks, strict=True)
        ):
            # The tasks of a group have the same features: they shared all so far.
            names = _names(groups)
            before = {names[group]: after[group[0]] for group in groups}
            copies = _Copies(block, f"block_{place}", width)
            made = _linked(sharing, before, copies)
            for group in groups:
                after |= dict.fromkeys(group, made[names[group]])
        return after

    def build(
        self,
        inputs: Any,
        blocks: Sequence[Block],
        heads: Mapping[str, Any],
        width: float = 1.0,
        stem: Callable[[Any], Any] | None = None,
        name: str | None = None,
    ) -> MultiTaskModel:
        """Returns a `MultiTaskModel`, not compiled.

        Args:
            inputs: `keras.Input`, or a nest of them.
            blocks: As in `apply`.
            heads: Dict by task of a layer, a list of layers, or a function from tensor
                to tensor.
            width: As in `apply`.
            stem: A layer or function from inputs to the tensor that the first block
                reads, for all tasks, such as of a table of embeddings. Defaults to
                `None`: the input itself, of which there must be one.
            name: String, optional. Name of the model.

        Raises:
            ValueError: If there are several inputs and no stem, or the keys of `heads`
                are not the tasks of the tree.
        """
        if sorted(heads) != sorted(self.tree.tasks):
            raise ValueError(
                f"The keys of `heads` must be the tasks {list(self.tree.tasks)}. "
                f"Received: {list(heads)}"
            )
        features = inputs if stem is None else stem(inputs)
        if not isinstance(features, keras.KerasTensor):
            raise ValueError(
                "The first block reads one tensor: give a `stem` that makes it of "
                f"several inputs. Received: {features!r}"
            )
        model = with_heads(inputs, self.apply(features, blocks, width), heads, name)
        model.sharing_plan = self
        return model

    def __str__(self) -> str:
        said = []
        for line, sharing in zip(str(self.tree).splitlines(), self.links, strict=True):
            options = ", ".join(
                f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}"
                for k, v in sharing.options.items()
            )
            link = f"{sharing.link}: {options}" if options else sharing.link
            said.append(line if sharing.link == COPIES else f"{line}  [{link}]")
        return "\n".join(said)


class _Copies:
    """Makes copies of a block, of which each draws its weights for itself."""

    def __init__(self, block: Block, name: str, width: float) -> None:
        layer = block if isinstance(block, keras.layers.Layer) else block()
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "A block must be a keras.layers.Layer, or a function that returns one. "
                f"Received: {layer!r}"
            )
        self._class = type(layer)
        self._config = layer.get_config()
        self._name = name
        self._width = width
        self._count = 0

    def make(self, name: str, width: float = 1.0) -> keras.layers.Layer:
        """Returns one more copy."""
        config = with_seeds_of_its_own(self._config, self._count)
        config = with_width(config, self._width * width)
        self._count += 1
        return self._class.from_config({**config, "name": f"{self._name}_{name}"})

    def named(self, name: str) -> str:
        """Returns a name for a layer that links copies."""
        return f"{self._name}_{name}"


def _linked(
    sharing: BlockSharing, before: Mapping[str, Any], copies: _Copies
) -> dict[str, Any]:
    """Returns the features of each group after a block.

    Args:
        sharing: How groups are linked.
        before: The features of each group before the block.
        copies: Makes copies of the block.
    """
    names, options = list(before), sharing.options
    if len(names) == 1 or sharing.link in (COPIES, CROSS_STITCH):
        after = {name: copies.make(name)(x) for name, x in before.items()}
        if len(names) == 1 or sharing.link == COPIES:
            return after
        return CrossStitch(names, name=copies.named("stitch"), **options)(after)
    same = all(x is before[names[0]] for x in before.values())
    inputs = before[names[0]] if same else dict(before)
    if sharing.link == SOFT:
        layer = SoftSharing(
            copies.make("copy"), names, name=copies.named("soft"), **options
        )
    else:
        experts = [
            copies.make(f"expert_{i}", options.get("width", 1.0))
            for i in range(options["experts"])
        ]
        gate = GATES[options.get("gate", "softmax")]()
        layer = MixtureOfExperts(
            experts, names, gate=gate, name=copies.named("experts")
        )
    return layer(inputs)


def _names(groups: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Returns a name for each group, of the names of its tasks."""
    names = {group: "_".join(group) for group in groups}
    if len(set(names.values())) < len(names):  # such as a, b beside a_b
        names = {group: f"{i}_{name}" for i, (group, name) in enumerate(names.items())}
    return names
