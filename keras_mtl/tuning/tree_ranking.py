"""Sharing trees in the order of what the affinities of tasks promise."""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mtl.analysis.partitions import Groups, partitions
from keras_mtl.analysis.task_groups import EXACT, check_affinity, gain, group_tasks
from keras_mtl.tuning.sharing_tree import SharingTree, all_trees

_ALL = 20_000
"""Trees that are compared one by one."""


def rank_trees(
    affinity: Any,
    units: Sequence[str | Sequence[str]],
    task_names: Sequence[str],
    blocks: int,
    num_trees: int | None = 16,
) -> list[SharingTree]:
    """Returns the sharing trees that affinities promise most of, the best first.

    A tree's promise is the mean over its blocks of the gain of the groups there, see
    `group_tasks`. Of two with the same, the one that has fewer copies comes first.

    All trees are compared where they are no more than 20,000. Otherwise those that part
    once, after any number of blocks: for up to 9 units into any partition, for more
    into that of `group_tasks` for any number of groups.

    Args:
        affinity: Matrix `(T, T)`, as in `group_tasks`.
        units: Names of tasks, or tuples of names that stay together.
        task_names: Names of the T tasks, in the order of the matrix.
        blocks: Integer, number of blocks.
        num_trees: Integer, how many. Defaults to 16; `None` is all.

    Raises:
        ValueError: If the matrix has other sizes.
    """
    affinity = check_affinity(affinity)
    if len(affinity) != len(task_names):
        raise ValueError(
            f"`affinity` must be {len(task_names)} by {len(task_names)}, for "
            f"{list(task_names)}. Received: shape {affinity.shape}"
        )
    members = [(u,) if isinstance(u, str) else tuple(u) for u in units]
    names = [group[0] for group in members]
    place = {task: i for i, task in enumerate(task_names)}
    known: dict[Any, float] = {}

    def gain_of(groups: Sequence[Sequence[str]]) -> float:
        if groups not in known:
            known[groups] = gain(affinity, [[place[t] for t in g] for g in groups])
        return known[groups]

    def promise(tree: SharingTree) -> tuple[float, int]:
        mean = np.mean([gain_of(groups) for groups in tree.levels])
        return round(float(mean), 12), -tree.copies

    if _number_of_trees(len(names), blocks) <= _ALL:
        trees = all_trees(names, blocks)
    else:
        trees = _that_part_once(_partitions(affinity, members, place), names, blocks)
    whole = (_with_members(tree, members) for tree in trees)
    if num_trees is None:
        return sorted(whole, key=promise, reverse=True)
    return heapq.nlargest(num_trees, whole, key=promise)


def _with_members(tree: SharingTree, members: Sequence[Sequence[str]]) -> SharingTree:
    by_name = {group[0]: group for group in members}
    return SharingTree(
        [
            [[task for name in group for task in by_name[name]] for group in groups]
            for groups in tree.levels
        ]
    )


def _number_of_trees(units: int, blocks: int) -> int:
    """Returns how many chains of partitions there are, each refining the last.

    By the exponential generating function: $e_0(x) = e^x - 1$ for one group, and one
    more block makes $\\exp(e(x)) - 1$ of it.
    """
    # Coefficients are numbers of trees of 1, 2, ... units.
    numbers = [1] * units
    for _ in range(blocks):
        made: list[int] = []
        for n in range(units):
            made.append(
                numbers[n]
                + sum(math.comb(n, k) * numbers[k] * made[n - 1 - k] for k in range(n))
            )
        numbers = made
    return numbers[-1]


def _that_part_once(
    all_groups: Iterable[Groups], names: Sequence[str], blocks: int
) -> Iterator[SharingTree]:
    yield SharingTree.shared(names, blocks)
    for groups in all_groups:
        if len(groups) > 1:
            for shared in range(blocks):
                yield SharingTree.grouped(groups, blocks, shared)


def _partitions(
    affinity: np.ndarray, members: Sequence[Sequence[str]], place: Mapping[str, int]
) -> Iterable[Groups]:
    """Returns partitions of the names of units."""
    names = [group[0] for group in members]
    if len(names) <= EXACT:
        return partitions(names)
    rows = [[place[task] for task in group] for group in members]
    between = [[affinity[np.ix_(one, two)].mean() for two in rows] for one in rows]
    found = [group_tasks(between, k, names) for k in range(2, len(names) + 1)]
    return dict.fromkeys(tuple(map(tuple, groups)) for groups in found)
