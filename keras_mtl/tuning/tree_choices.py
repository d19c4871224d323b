"""Sharing trees as hyperparameters: a setting for each tree, and no other settings."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mtl.tuning.hyperparameters import Conditions, choose, choose_number
from keras_mtl.tuning.sharing_tree import SharingTree

MAX_UNITS = 8


def choose_tree(
    hp: Any,
    tasks: Sequence[str | Sequence[str]],
    blocks: int,
    conditions: Conditions = (),
) -> SharingTree:
    """Returns the sharing tree that hyperparameters say.

    Tasks come in order. The first has the whole way from the input for itself. Each
    further one goes along with those that are there for some blocks
    (`"<task>/shared_blocks"`, all of them by default) and then leaves them. Where they
    have parted before, it is also said whom it goes along with
    (`"<task>/with/<blocks>/<groups>"`, by the first task of one of the groups). So each
    tree is made in one way, and each setting makes a tree.

    Args:
        hp: `keras_tuner.HyperParameters`.
        tasks: Names of the tasks; a list of names in place of one stays together, and
            counts as one.
        blocks: Integer, number of blocks.
        conditions: Pairs of the name of a hyperparameter and the values of it for which
            the tree is asked for. Defaults to none.

    Returns:
        A `SharingTree`.

    Raises:
        ValueError: If there are more than 8 tasks, or lists of tasks: their trees are
            millions, and the choices among them thousands.

    Example:

    ```python
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.values = {"b/shared_blocks": 0, "c/shared_blocks": 1, "c/with/1/a+b": "b"}
    print(keras_mtl.tuning.choose_tree(hp, ["a", "b", "c"], blocks=2))
    # block 0: a | b + c
    # block 1: a | b | c
    ```
    """
    units = as_units(tasks)
    names = list(units)
    shared, owner = {names[0]: 0}, {}
    for name in names[1:]:
        shared[name] = _choose_shared(hp, name, blocks, conditions)
        owner[name] = _choose_owner(hp, shared, name, blocks, conditions)
    return _tree(units, shared, owner, blocks)


def declare_tree(
    hp: Any,
    tasks: Sequence[str | Sequence[str]],
    blocks: int,
    conditions: Conditions = (),
) -> None:
    """Enters all hyperparameters of `choose_tree`, those of other settings too.

    A tuner finds hyperparameters by building models. Here there may be hundreds that
    are active in some settings alone, which would take as many models.

    Args:
        hp: `keras_tuner.HyperParameters`.
        tasks: As in `choose_tree`.
        blocks: As in `choose_tree`.
        conditions: As in `choose_tree`.
    """
    names = list(as_units(tasks))
    for place, name in enumerate(names[1:], start=1):
        _choose_shared(hp, name, blocks, conditions)
        for block in range(1, blocks + 1):
            # Who of those before has parted by then, and who has not.
            for at in itertools.product((0, block), repeat=place - 1):
                shared = dict(zip(names, (0, *at), strict=False))
                shared[name] = block
                _choose_owner(hp, shared, name, blocks, conditions)


def values_of_tree(
    tree: SharingTree, tasks: Sequence[str | Sequence[str]]
) -> dict[str, int | str]:
    """Returns the values of hyperparameters of which `choose_tree` makes a tree.

    Args:
        tree: A `SharingTree`.
        tasks: As in `choose_tree`.

    Raises:
        ValueError: If the tree is of other tasks, or parts those that stay together.
    """
    units = as_units(tasks)
    names, values = list(units), {}
    shared, owner = {names[0]: 0}, {}
    for place, name in enumerate(names[1:], start=1):
        along = [tree.shared_blocks(name, other) for other in names[:place]]
        shared[name] = values[_shared(name)] = max(along)
        # The first of those that it goes along with longest is the first of its group.
        owner[name] = names[along.index(max(along))]
        owners = _owners(shared, name)
        if len(owners) > 1:
            values[_with(shared[name], name, owners)] = owner[name]
    if _tree(units, shared, owner, len(tree.levels)) != tree:
        raise ValueError(
            "`tree` must be of these tasks, and those of a list must stay together. "
            f"Received: tasks={list(tasks)!r}, and the tree\n{tree}"
        )
    return values


def as_units(tasks: Sequence[str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Returns what stays together, by the name of its first task.

    Raises:
        ValueError: If a task is there twice, or there are more than 8 units.
    """
    units = [(unit,) if isinstance(unit, str) else tuple(unit) for unit in tasks]
    named = [task for unit in units for task in unit]
    if isinstance(tasks, str) or not named or len(set(named)) < len(named):
        raise ValueError(
            f"`tasks` must be a list of names, each once. Received: tasks={tasks!r}"
        )
    if len(units) > MAX_UNITS:
        raise ValueError(
            f"Trees are searched for {MAX_UNITS} tasks at most. Let some stay "
            "together: give a list of names in place of a name, such as one of "
            f"`keras_mtl.tuning.group_tasks`. Received: {len(units)}, {list(tasks)}"
        )
    return {unit[0]: unit for unit in units}


def _shared(name: str) -> str:
    return f"{name}/shared_blocks"


def _with(block: int, name: str, owners: Sequence[str]) -> str:
    return f"{name}/with/{block}/{'+'.join(owners)}"


def _owners(shared: Mapping[str, int], name: str) -> list[str]:
    """Returns who is first in each group at the last block that a task shares.

    Args:
        shared: How many blocks each task has shared, those before `name` and itself.
        name: Name of the task.
    """
    before = list(shared)[: list(shared).index(name)]
    if not shared[name]:
        return []
    return [
        other
        for place, other in enumerate(before)
        if not place or shared[other] < shared[name]
    ]


def _choose_shared(hp: Any, name: str, blocks: int, conditions: Conditions) -> int:
    """Returns how many blocks a task shares with those before it."""
    return choose_number(hp, _shared(name), 0, blocks, blocks, conditions)


def _choose_owner(
    hp: Any,
    shared: Mapping[str, int],
    name: str,
    blocks: int,
    conditions: Conditions,
) -> str:
    """Returns whom a task goes along with, a choice where there are several groups."""
    owners = _owners(shared, name)
    if len(owners) < 2:
        return next(iter(shared))
    block = shared[name]
    conditions = [*conditions, (_shared(name), [block])]
    for other in list(shared)[1 : list(shared).index(name)]:
        by_then = range(block) if other in owners else range(block, blocks + 1)
        conditions.append((_shared(other), list(by_then)))
    return choose(hp, _with(block, name, owners), owners, conditions)


def _tree(
    units: Mapping[str, Sequence[str]],
    shared: Mapping[str, int],
    owner: Mapping[str, str],
    blocks: int,
) -> SharingTree:
    """Returns the tree of tasks that follow an owner for some blocks."""
    levels = []
    for block in range(1, blocks + 1):
        first = {}
        for name in units:
            follows = name in owner and shared[name] >= block
            first[name] = first[owner[name]] if follows else name
        groups: dict[str, list[str]] = {}
        for name, tasks in units.items():
            groups.setdefault(first[name], []).extend(tasks)
        levels.append(list(groups.values()))
    return SharingTree(levels)
