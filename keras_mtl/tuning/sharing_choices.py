"""Sharing architectures as hyperparameters."""

from collections.abc import Sequence
from typing import Any

from keras_mtl.tuning.hyperparameters import (
    Conditions,
    choose,
    choose_number,
)
from keras_mtl.tuning.sharing_plan import (
    CROSS_STITCH,
    EXPERTS,
    GATES,
    LINKS,
    SOFT,
    BlockSharing,
    SharingPlan,
)
from keras_mtl.tuning.sharing_tree import SharingTree
from keras_mtl.tuning.tree_choices import MAX_UNITS, as_units, choose_tree, declare_tree

HARD, BRANCH, PER_BLOCK = "hard", "branch", "per_block"
SHARING = (HARD, BRANCH, CROSS_STITCH, EXPERTS, SOFT)
PREFIX = "sharing"


def choose_sharing(
    hp: Any,
    tasks: Sequence[str | Sequence[str]],
    blocks: int,
    sharing: Sequence[str] | str | None = None,
    trees: Sequence[SharingTree] | None = None,
) -> SharingPlan:
    """Returns the sharing architecture that hyperparameters say.

    `"sharing"` says which kind, of those allowed:

    - `"hard"`: all tasks share all blocks.
    - `"branch"`: a tree, of `choose_tree`, or with `trees` the rank of one
      (`"tree/rank"`).
    - `"cross_stitch"`: all tasks share the first `"cross_stitch/shared_blocks"`; above
      them each has copies, whose features are mixed after each block.
    - `"mixture_of_experts"`: all share the first
      `"mixture_of_experts/shared_blocks"`; each block above them is one of `"/experts"`
      of a `"/width"`, with a `"/gate"` for each task.
    - `"soft"`: all share the first `"soft/shared_blocks"`; above them each has copies
      whose parameters are pulled together with `"soft/weight"`.

    Hard sharing is a tree too, so that with `"branch"` allowed `"hard"` is no kind of
    its own: each architecture comes of one setting.

    `sharing="per_block"` is all of these and their mixtures: a tree, and for every
    block at which it has parted, how its groups are linked there
    (`"block_<i>/link"`).

    Args:
        hp: `keras_tuner.HyperParameters`.
        tasks: Names of the tasks; a list of names in place of one stays together, in
            all kinds.
        blocks: Integer, number of blocks.
        sharing: List of kinds, or `"per_block"`. Defaults to `None`, all kinds that
            fit: for more than 8 tasks none of trees, unless `trees` are given.
        trees: List of `SharingTree`s, the best first, to choose from in place of all.
            A rank is drawn by its logarithm, so that the first come often.

    Returns:
        A `SharingPlan`.

    Raises:
        ValueError: If a kind is unknown, or there are too many tasks for trees.

    Example:

    ```python
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    plan = keras_mtl.tuning.choose_sharing(hp, ["a", "b"], blocks=2)
    print(plan)  # hard sharing, the default
    # block 0: a + b
    # block 1: a + b
    ```
    """
    kinds = kinds_that_fit(sharing, tasks, trees)
    return _Reader(hp, tasks, blocks, trees).read(kinds)


def declare_sharing(
    hp: Any,
    tasks: Sequence[str | Sequence[str]],
    blocks: int,
    sharing: Sequence[str] | str | None = None,
    trees: Sequence[SharingTree] | None = None,
) -> None:
    """Enters all hyperparameters of `choose_sharing`, those of other settings too.

    Args:
        hp: As in `choose_sharing`.
        tasks: As in `choose_sharing`.
        blocks: As in `choose_sharing`.
        sharing: As in `choose_sharing`.
        trees: As in `choose_sharing`.
    """
    kinds = kinds_that_fit(sharing, tasks, trees)
    _Reader(hp, tasks, blocks, trees).declare(kinds)


def kinds_that_fit(
    sharing: Sequence[str] | str | None,
    tasks: Sequence[str | Sequence[str]],
    trees: Sequence[SharingTree] | None = None,
) -> list[str]:
    """Returns the kinds of sharing that are asked for, or all that fit the tasks.

    Args:
        sharing: As in `choose_sharing`.
        tasks: As in `choose_sharing`.
        trees: As in `choose_sharing`.

    Raises:
        ValueError: As `check_sharing`, or if there are too many tasks for trees.
    """
    if sharing is None and len(tasks) == 1:
        return [HARD]
    if sharing is None and trees is None and len(tasks) > MAX_UNITS:
        sharing = [kind for kind in SHARING if kind != BRANCH]
    kinds = check_sharing(sharing)
    if trees is None and {BRANCH, PER_BLOCK} & set(kinds):
        as_units(tasks)
    return kinds


def check_sharing(sharing: Sequence[str] | str | None) -> list[str]:
    """Returns the kinds of sharing that may be searched, each of its own.

    Raises:
        ValueError: If a kind is unknown, there is none, or `"per_block"` is among
            others.
    """
    if sharing in (PER_BLOCK, [PER_BLOCK]):
        return [PER_BLOCK]
    kinds = list(SHARING if sharing is None else sharing)
    unknown = [kind for kind in kinds if kind not in SHARING]
    if isinstance(sharing, str) or unknown or not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"`sharing` must be a list of some of {list(SHARING)}, or 'per_block', "
            f"which covers them all. Received: sharing={sharing!r}"
        )
    if BRANCH in kinds and HARD in kinds:
        kinds.remove(HARD)  # One of the trees.
    return kinds


class _Reader:
    """Reads the choices of one setting, or enters those of all settings."""

    def __init__(
        self,
        hp: Any,
        tasks: Sequence[str | Sequence[str]],
        blocks: int,
        trees: Sequence[SharingTree] | None,
    ) -> None:
        self._hp = hp
        self._tasks = tasks
        self._blocks = blocks
        self._trees = trees
        self._groups = [
            (unit,) if isinstance(unit, str) else tuple(unit) for unit in tasks
        ]

    def read(self, kinds: list[str]) -> SharingPlan:
        """Returns the plan of this setting."""
        kind = choose(self._hp, PREFIX, kinds)
        conditions = [(PREFIX, [kind])]
        if kind == HARD:
            return SharingPlan(SharingTree.grouped([self._all()], self._blocks))
        if kind == BRANCH:
            return SharingPlan(self._tree(conditions))
        if kind == PER_BLOCK:
            return self._per_block(conditions)
        shared = self._shared_blocks(kind, conditions)
        tree = SharingTree.grouped(self._groups, self._blocks, shared)
        link = BlockSharing(kind, self._options(kind, kind, conditions))
        links = [BlockSharing()] * shared + [link] * (self._blocks - shared)
        return SharingPlan(tree, tuple(links))

    def declare(self, kinds: list[str]) -> None:
        """Enters the hyperparameters of all settings."""
        choose(self._hp, PREFIX, kinds)
        for kind in kinds:
            conditions = [(PREFIX, [kind])]
            if kind in (BRANCH, PER_BLOCK):
                if self._trees is not None:
                    self._tree(conditions)
                else:
                    declare_tree(self._hp, self._tasks, self._blocks, conditions)
            if kind == PER_BLOCK:
                for block in range(self._blocks):
                    for parted in self._ways_to_have_parted(block):
                        scope = [*conditions, *parted]
                        name = self._link_name(block, parted)
                        choose(self._hp, name, LINKS, scope)
                        for link in LINKS[1:]:
                            self._options(name, link, [*scope, (name, [link])])
            elif kind not in (HARD, BRANCH):
                self._shared_blocks(kind, conditions)
                self._options(kind, kind, conditions)

    def _all(self) -> tuple[str, ...]:
        return tuple(task for group in self._groups for task in group)

    def _tree(self, conditions: Conditions) -> SharingTree:
        if self._trees is None:
            return choose_tree(self._hp, self._tasks, self._blocks, conditions)
        rank = choose_number(
            self._hp,
            "tree/rank",
            1,
            len(self._trees),
            conditions=conditions,
            sampling="log",
        )
        return self._trees[(rank or 1) - 1]

    def _shared_blocks(self, kind: str, conditions: Conditions) -> int:
        name = f"{kind}/shared_blocks"
        return choose_number(self._hp, name, 0, self._blocks - 1, conditions=conditions)

    def _options(self, prefix: str, link: str, conditions: Conditions) -> dict:
        if link == SOFT:
            return {
                "weight": choose_number(
                    self._hp, f"{prefix}/weight", 1e-4, 1e-1, 1e-3, conditions, "log"
                )
            }
        if link == EXPERTS:
            return {
                "experts": choose_number(
                    self._hp, f"{prefix}/experts", 2, 8, 4, conditions
                ),
                "width": choose(
                    self._hp, f"{prefix}/width", [0.5, 0.25, 1.0], conditions
                ),
                "gate": choose(self._hp, f"{prefix}/gate", list(GATES), conditions),
            }
        return {}

    def _per_block(self, conditions: Conditions) -> SharingPlan:
        tree = self._tree(conditions)
        links = []
        for block, groups in enumerate(tree.levels):
            if len(groups) == 1:
                links.append(BlockSharing())
                continue
            ways = self._ways_to_have_parted(block)
            parted = next(way for way in ways if self._holds(way))
            name, scope = self._link_name(block, parted), [*conditions, *parted]
            link = choose(self._hp, name, LINKS, scope)
            options = self._options(name, link, [*scope, (name, [link])])
            links.append(BlockSharing(link, options))
        return SharingPlan(tree, tuple(links))

    def _ways_to_have_parted(self, block: int) -> list[Conditions]:
        """Returns conditions, one of which holds where the tree has parted at a block.

        By rank, or by the first task to have left; one excludes the others.
        """
        if self._trees is None:
            names = list(as_units(self._tasks))[1:]
            return [
                self._first_to_leave(names[: place + 1], block)
                for place in range(len(names))
            ]
        ranks = [
            rank
            for rank, tree in enumerate(self._trees, start=1)
            if len(tree.levels[block]) > 1
        ]
        return [[("tree/rank", ranks)]] if ranks else []

    def _holds(self, conditions: Conditions) -> bool:
        return all(self._hp.values[name] in values for name, values in conditions)

    def _first_to_leave(self, names: Sequence[str], block: int) -> Conditions:
        """Returns the conditions by which the last of these is the first to leave."""
        stays = list(range(block + 1, self._blocks + 1))
        conditions = [(f"{name}/shared_blocks", stays) for name in names[:-1]]
        return [*conditions, (f"{names[-1]}/shared_blocks", list(range(block + 1)))]

    def _link_name(self, block: int, parted: Conditions) -> str:
        last = parted[-1][0].partition("/")[0]
        suffix = "" if self._trees is not None or len(self._tasks) == 2 else f"/{last}"
        return f"block_{block}/link{suffix}"
