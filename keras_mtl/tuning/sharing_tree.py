"""Which task shares which blocks: a tree."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_mtl.analysis.partitions import Groups, partitions


@dataclass(frozen=True, init=False, eq=False)
class SharingTree:
    """A tree over blocks: at each block the tasks part further, and never meet again.

    The tasks of a group share a block; each group has a copy of its own. Hard sharing,
    one group at every block, and independent networks, a group for each task from the
    first block on, are the two ends.

    Args:
        levels: For each block, from the input on, the groups of tasks: tuples of names.
            Each group lies within a group of the block before. They are put in order.

    Raises:
        ValueError: If the groups of a block are no partition of the tasks, or do not
            refine those of the block before.

    Example:

    ```python
    tree = keras_mtl.tuning.SharingTree(
        [[("income", "married", "age")], [("income", "age"), ("married",)]]
    )
    print(tree)
    # block 0: income + married + age
    # block 1: income + age | married
    assert tree.copies == 3
    ```
    """

    levels: tuple[Groups, ...]

    def __init__(self, levels: Sequence[Sequence[Sequence[str]]]) -> None:
        if not levels:
            raise ValueError(
                f"`levels` must have one block or more. Received: levels={levels!r}"
            )
        order = {}
        for group in levels[0]:
            for task in group:
                order.setdefault(task, len(order))
        checked = []
        for block, groups in enumerate(levels):
            groups = [sorted(group, key=lambda t: order.get(t, -1)) for group in groups]
            tasks = [task for group in groups for task in group]
            if sorted(tasks) != sorted(order) or not all(groups):
                raise ValueError(
                    f"The groups of block {block} must have each task once, of "
                    f"{list(order)}, and none may be empty. Received: {groups}"
                )
            groups.sort(key=lambda group: order[group[0]])
            for group in groups:
                if checked and not any(set(group) <= set(g) for g in checked[-1]):
                    raise ValueError(
                        "Tasks that have parted do not share a later block: each "
                        f"group of block {block} must lie within one of the block "
                        f"before, {list(checked[-1])}. Received: {groups}"
                    )
            checked.append(tuple(tuple(group) for group in groups))
        object.__setattr__(self, "levels", tuple(checked))

    @classmethod
    def shared(cls, tasks: Sequence[str], blocks: int) -> "SharingTree":
        """Returns hard sharing: one group at every block."""
        return cls([[tuple(tasks)]] * blocks)

    @classmethod
    def independent(cls, tasks: Sequence[str], blocks: int) -> "SharingTree":
        """Returns independent networks: a group for each task."""
        return cls([[(task,) for task in tasks]] * blocks)

    @classmethod
    def grouped(
        cls, groups: Sequence[Sequence[str]], blocks: int, shared_blocks: int = 0
    ) -> "SharingTree":
        """Returns a tree that parts once.

        Args:
            groups: Groups of tasks.
            blocks: Number of blocks.
            shared_blocks: How many of them, the first, all tasks share.
        """
        together = [task for group in groups for task in group]
        return cls(
            [[together]] * shared_blocks + [list(groups)] * (blocks - shared_blocks)
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(task for group in self.levels[0] for task in group)

    @property
    def copies(self) -> int:
        """How many blocks the network has, copies counted."""
        return sum(len(groups) for groups in self.levels)

    def group_of(self, task: str, block: int) -> tuple[str, ...]:
        """Returns the tasks that a task shares a block with, itself among them.

        Raises:
            ValueError: If there is no task of this name.
        """
        for group in self.levels[block]:
            if task in group:
                return group
        raise ValueError(
            f"`task` must be one of {list(self.tasks)}. Received: task={task!r}"
        )

    def shared_blocks(self, first: str, second: str) -> int:
        """Returns how many blocks two tasks share."""
        return sum(
            second in self.group_of(first, block) for block in range(len(self.levels))
        )

    def to_dict(self) -> dict[str, list[list[str]]]:
        """Returns the groups of each block, for a JSON file."""
        return {
            f"block_{block}": [list(group) for group in groups]
            for block, groups in enumerate(self.levels)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[Sequence[str]]]) -> "SharingTree":
        """Returns the tree of which `to_dict` has made this."""
        return cls([data[f"block_{block}"] for block in range(len(data))])

    def _as_sets(self) -> tuple[frozenset[frozenset[str]], ...]:
        return tuple(frozenset(map(frozenset, groups)) for groups in self.levels)

    def __eq__(self, other: object) -> bool:
        """Whether tasks share the same blocks, in whatever order they are named."""
        if not isinstance(other, SharingTree):
            return NotImplemented
        return self._as_sets() == other._as_sets()

    def __hash__(self) -> int:
        return hash(self._as_sets())

    def __str__(self) -> str:
        return "\n".join(
            f"block {block}: " + " | ".join(" + ".join(group) for group in groups)
            for block, groups in enumerate(self.levels)
        )

    def plot(self, path: Any = None, axis: Any = None) -> Any:
        """Draws the tree, from the input at the bottom to the tasks at the top.

        Args:
            path: File to write, such as `"tree.png"`. Defaults to `None`, none.
            axis: A matplotlib `Axes` to draw on. Defaults to one of its own.

        Returns:
            The `Axes`.
        """
        from keras_mtl.tuning.tree_drawing import draw_tree

        return draw_tree(self, path, axis)


def all_trees(tasks: Sequence[str], blocks: int) -> Iterator[SharingTree]:
    """Yields every sharing tree of some tasks over some blocks, each once.

    They are many: 2, 5, 15, 52, 203 for 2 to 6 tasks and one block (the numbers of
    Bell); with 3 blocks 4, 22, 154, 1304, 12915.

    Args:
        tasks: Names of the tasks.
        blocks: Number of blocks.
    """

    def below(groups: Groups, left: int) -> Iterator[list[Groups]]:
        if not left:
            yield []
            return
        for refined in _refinements(groups):
            for rest in below(refined, left - 1):
                yield [refined, *rest]

    for levels in below((tuple(tasks),), blocks):
        yield SharingTree(levels)


def _refinements(groups: Groups) -> Iterator[Groups]:
    if not groups:
        yield ()
        return
    for first in partitions(groups[0]):
        for rest in _refinements(groups[1:]):
            yield (*first, *rest)
