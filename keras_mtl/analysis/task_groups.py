"""Which tasks to train together, by how much each helps the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mtl.analysis.partitions import Groups, partitions
from keras_mtl.argument_checks import check_count

EXACT = 9


def group_tasks(
    affinity: Any, max_groups: int, task_names: Sequence[str] | None = None
) -> list[list[str]]:
    """Returns the groups of tasks that are best trained together.

    The gain of task j in a group S is the mean of what the others do for it, and none
    where it is alone; the groups with the greatest sum of gains are returned:

    $$ \\max \\sum_{S} \\sum_{j \\in S} \\frac{1}{|S| - 1}
       \\sum_{i \\in S,\\, i \\ne j} Z_{ij} $$

    All partitions are compared for up to 9 tasks. For more, groups are merged greedily
    from single tasks on, and then tasks are moved one by one for as long as that helps.

    Args:
        affinity: Matrix `(T, T)`: $Z_{ij}$ is how much a step for task i (row) lowers
            the loss of task j (column), in parts of that loss. Negative where it
            raises it. The diagonal is not used.
        max_groups: Integer, the number of networks that can be afforded.
        task_names: List of T names. Defaults to `None`: `"0"`, `"1"` and so on.

    Returns:
        A list of lists of names.

    Raises:
        ValueError: If the matrix is not square, or has a number that is not finite
            beside the diagonal.

    Example:

    ```python
    affinity = [[0, 0.3, -0.2], [0.2, 0, -0.1], [-0.3, 0.1, 0]]
    groups = keras_mtl.analysis.group_tasks(affinity, 2, ["a", "b", "c"])
    print(groups)  # [['a', 'b'], ['c']]
    ```

    Reference:
        Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning",
        NeurIPS 2021, https://arxiv.org/abs/2109.04617
    """
    affinity = check_affinity(affinity)
    check_count("max_groups", max_groups)
    count = len(affinity)
    names = [str(i) for i in range(count)] if task_names is None else list(task_names)
    if len(names) != count or len(set(names)) < count:
        raise ValueError(
            f"`task_names` must be {count} names, each once. Received: {names}"
        )
    if count <= EXACT:
        found = max(
            (
                groups
                for groups in partitions(range(count))
                if len(groups) <= max_groups
            ),
            key=lambda groups: (gain(affinity, groups), -len(groups)),
        )
    else:
        found = _greedy(affinity, max_groups)
    return [[names[i] for i in sorted(group)] for group in sorted(found, key=min)]


def gain(affinity: np.ndarray, groups: Sequence[Sequence[int]]) -> float:
    """Returns the sum over tasks of the mean of what the others in a group do for each.

    Args:
        affinity: Matrix `(T, T)`.
        groups: Groups of indices of tasks.
    """
    return sum(
        affinity[np.ix_(group, group)].sum() / (len(group) - 1)
        for group in map(list, groups)
        if len(group) > 1
    )


def check_affinity(affinity: Any) -> np.ndarray:
    """Returns a matrix of affinities with a diagonal of 0.

    Raises:
        ValueError: If it is not square, or not finite beside the diagonal.
    """
    matrix = np.array(affinity, dtype="float64")
    if matrix.ndim != 2 or len(set(matrix.shape)) != 1 or not matrix.size:
        raise ValueError(
            "`affinity` must be a square matrix, tasks by tasks. "
            f"Received: shape {matrix.shape}"
        )
    np.fill_diagonal(matrix, 0.0)
    if not np.isfinite(matrix).all():
        raise ValueError(
            "`affinity` must be finite beside its diagonal. "
            f"Received: {np.asarray(affinity)!r}"
        )
    return matrix


def _greedy(affinity: np.ndarray, max_groups: int) -> Groups:
    groups = [[i] for i in range(len(affinity))]
    while len(groups) > 1:
        merged = [
            [
                *(g for k, g in enumerate(groups) if k not in (i, j)),
                groups[i] + groups[j],
            ]
            for i in range(len(groups))
            for j in range(i)
        ]
        best = max(merged, key=lambda g: gain(affinity, g))
        if len(groups) <= max_groups and gain(affinity, best) <= gain(affinity, groups):
            break
        groups = best
    while True:
        moved = []
        for place, group in enumerate(groups):
            for task in group:
                left = [t for t in group if t != task]
                others = [g for k, g in enumerate(groups) if k != place]
                rest = [left] if left else []
                moved += [
                    [*rest, *others[:k], [*other, task], *others[k + 1 :]]
                    for k, other in enumerate(others)
                ]
                if left and len(groups) < max_groups:
                    moved.append([left, *others, [task]])
        best = max(moved, key=lambda g: gain(affinity, g), default=groups)
        if gain(affinity, best) <= gain(affinity, groups) + 1e-12:
            return tuple(map(tuple, groups))
        groups = best
