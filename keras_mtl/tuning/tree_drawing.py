"""Pictures of sharing trees."""

from collections.abc import Mapping
from typing import Any

from keras_mtl.tuning.sharing_tree import SharingTree


def draw_tree(tree: SharingTree, path: Any = None, axis: Any = None) -> Any:
    """Draws a tree, from the input at the bottom to the tasks at the top.

    Args:
        tree: A `SharingTree`.
        path: File to write. Defaults to `None`, none.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    if axis is None:
        from matplotlib.figure import Figure

        size = 1.2 * len(tree.tasks) + 1, 0.8 * len(tree.levels) + 1.4
        axis = Figure(figsize=size, layout="constrained").add_subplot()
    order = _order(tree)
    at = {task: place for place, task in enumerate(order)}

    def centre(group: tuple[str, ...]) -> float:
        return sum(at[task] for task in group) / len(group)

    below: Mapping[str, tuple[float, float]] = dict.fromkeys(
        order, (centre(tree.tasks), 0)
    )
    axis.text(*below[order[0]], "input", ha="center", va="center")
    for height, groups in enumerate(tree.levels, start=1):
        here = {}
        for group in groups:
            place = centre(group), height
            _line(axis, below[group[0]], place)
            width = 0.5 * (max(at[t] for t in group) - min(at[t] for t in group)) + 0.3
            axis.plot(
                [place[0] - width, place[0] + width],
                [height, height],
                color="#0072b2",
                linewidth=9,
                solid_capstyle="round",
            )
            here |= dict.fromkeys(group, place)
        below = here
    top = len(tree.levels) + 1
    for task in order:
        _line(axis, below[task], (at[task], top))
        axis.text(
            at[task],
            top,
            task,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "0.6"},
        )
    axis.set_xlim(-0.8, len(order) - 0.2)
    axis.set_ylim(-0.4, top + 0.5)
    axis.set_yticks(
        range(1, top), [f"block {block}" for block in range(len(tree.levels))]
    )
    axis.set_xticks([])
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)
    if path is not None:
        axis.figure.savefig(path, dpi=110)
    return axis


def _line(axis: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.plot(
        [start[0], end[0]], [start[1], end[1]], color="0.6", linewidth=1.5, zorder=0
    )


def _order(tree: SharingTree) -> list[str]:
    """Returns the tasks so that those of a group are side by side at every level."""
    index = {task: place for place, task in enumerate(tree.tasks)}
    return sorted(
        tree.tasks,
        key=lambda task: (
            [
                min(index[t] for t in tree.group_of(task, block))
                for block in range(len(tree.levels))
            ]
            + [index[task]]
        ),
    )
