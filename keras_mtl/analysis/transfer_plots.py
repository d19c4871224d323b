"""Pictures of what a transfer study has measured, readable without color."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mtl.analysis.transfer_measures import TransferMeasures
from keras_mtl.metrics.mean_and_interval import MeanAndInterval

_GAIN, _LOSS, _GREY = "#0072b2", "#d55e00", "#666666"
_MARKERS = "osD^vPX*"
_LINES = ("-", "--", "-.", ":")


def plot_gains(measures: TransferMeasures, axis: Any = None) -> Any:
    """Draws the gain of each task with its interval, together and with what was tried.

    Args:
        measures: Of a `TransferStudy`.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    axis = _axis(axis, (5.5, 1.4 + 0.8 * len(measures.task_names)))
    kinds: dict[str, dict[str, MeanAndInterval]] = {}
    for name, task in measures.tasks.items():
        kinds.setdefault("together", {})[name] = task.gain
        kinds.setdefault("at one epoch for all", {})[name] = task.gain_at_one_epoch
        if task.wide is not None:
            kinds.setdefault("wider trunk", {})[name] = task.wide.gain
        for remedy, found in task.remedies.items():
            kinds.setdefault(remedy, {})[name] = found.gain
    for number, (kind, gains) in enumerate(kinds.items()):
        places = [
            place + 0.7 * (number + 0.5) / len(kinds) - 0.35
            for place in range(len(gains))
        ]
        means = [gain.mean for gain in gains.values()]
        axis.errorbar(
            means,
            places,
            xerr=np.transpose([_reach(gain) for gain in gains.values()]),
            fmt=_MARKERS[number % len(_MARKERS)],
            color=_GAIN if kind == "together" else _GREY,
            markersize=7 if kind == "together" else 5,
            capsize=3,
            label=kind,
        )
    axis.axvline(0, color="0.7", linewidth=1, zorder=0)
    axis.set_yticks(range(len(measures.task_names)), list(measures.task_names))
    axis.invert_yaxis()
    axis.set_xscale("symlog", linthresh=10)
    axis.set_xlabel("percent better than alone (95 % interval)")
    axis.set_title("Gain of each task", fontsize=10)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.22), ncols=3)
    return axis


def plot_transfer(measures: TransferMeasures, axis: Any = None) -> Any:
    """Draws the transfer matrix: gains of pairs, with the numbers in it.

    Args:
        measures: Of a `TransferStudy`.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    axis = _axis(axis, (5.5, 4.5))
    limit = np.nanmax(np.abs(measures.transfer), initial=1.0)
    _heat_map(axis, measures.transfer, measures.task_names, limit, "{:+.1f}")
    axis.set_xlabel("gain of, percent")
    axis.set_ylabel("trained together with")
    axis.set_title("Transfer in pairs", fontsize=10)
    return axis


def plot_conflict(measures: TransferMeasures, axis: Any = None) -> Any:
    """Draws the mean cosine of each pair of tasks by layer, with its interval.

    Args:
        measures: Of a `TransferStudy` whose tasks share variables.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    axis = _axis(axis, (5.5, 3.8))
    conflict = measures.conflict
    for number, (i, j, name) in enumerate(_pairs(measures)):
        values = conflict.cosines[:, i, j]
        below = np.nan_to_num(values - conflict.lower[:, i, j])
        above = np.nan_to_num(conflict.upper[:, i, j] - values)
        axis.errorbar(
            np.arange(len(values)) + 0.06 * (number % 5 - 2),
            values,
            yerr=np.maximum([below, above], 0),
            **_style(number),
            capsize=2,
            label=name,
        )
    axis.axhline(0, color="0.7", linewidth=1, zorder=0)
    names = [layer.split("/")[-1] for layer in conflict.layers]
    axis.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=8)
    axis.set_ylabel("cosine of gradients")
    axis.set_title("Conflict by layer (below 0)", fontsize=10)
    _legend(axis)
    return axis


def plot_conflict_over_time(measures: TransferMeasures, axis: Any = None) -> Any:
    """Draws the mean cosine of each pair by all shared layers, epoch by epoch.

    Args:
        measures: Of a `TransferStudy` whose tasks share variables.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    axis = _axis(axis, (5.5, 3.8))
    by_epoch = measures.conflict.by_epoch[:, -1]
    for number, (i, j, name) in enumerate(_pairs(measures)):
        measured = np.flatnonzero(np.isfinite(by_epoch[:, i, j]))
        axis.plot(
            measured + 1,
            by_epoch[measured, i, j],
            markevery=max(1, len(measured) // 8),
            **_style(number),
            label=name,
        )
    axis.axhline(0, color="0.7", linewidth=1, zorder=0)
    axis.set_xlabel("epoch")
    axis.set_ylabel("cosine of gradients")
    axis.set_title("Conflict over time", fontsize=10)
    _legend(axis)
    return axis


def plot_learning_curves(measures: TransferMeasures, axis: Any = None) -> Any:
    """Draws the gain of each task by the part of the training rows.

    Args:
        measures: Of a `TransferStudy`.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    axis = _axis(axis, (5.5, 3.8))
    for number, (name, task) in enumerate(measures.tasks.items()):
        parts = np.array(list(task.curve))
        axis.errorbar(
            parts * (1 + 0.01 * (number - 1)),
            [gain.mean for gain in task.curve.values()],
            yerr=np.transpose([_reach(gain) for gain in task.curve.values()]),
            **_style(number),
            capsize=3,
            label=name,
        )
    axis.axhline(0, color="0.7", linewidth=1, zorder=0)
    axis.set_yscale("symlog", linthresh=10)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("part of the training rows")
    axis.set_ylabel("percent better than alone")
    axis.set_title("Gain by the size of the data", fontsize=10)
    _legend(axis)
    return axis


def plot_overfitting(measures: TransferMeasures, axis: Any = None) -> Any:
    """Draws the gap between training and validation, alone and together.

    Args:
        measures: Of a `TransferStudy`.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    axis = _axis(axis, (5.5, 3.8))
    kinds = {"alone": "gap_alone", "together": "gap_together"}
    for number, (label, name) in enumerate(kinds.items()):
        gaps = [getattr(task, name) for task in measures.tasks.values()]
        axis.bar(
            np.arange(len(gaps)) + 0.38 * (number - 0.5),
            [gap.mean for gap in gaps],
            0.36,
            yerr=np.transpose([_reach(gap) for gap in gaps]),
            color="white" if number else "0.75",
            edgecolor="0.2",
            hatch="//" if number else None,
            capsize=3,
            label=label,
        )
    axis.axhline(0, color="0.2", linewidth=1)
    axis.set_xticks(range(len(measures.task_names)), list(measures.task_names))
    axis.set_ylabel("training data better, percent")
    axis.set_title("Gap between training and validation", fontsize=10)
    _legend(axis)
    return axis


def plot_similarity(measures: TransferMeasures, axis: Any = None) -> Any:
    """Draws the linear CKA of networks for two tasks alone, by layer.

    A thin line is that of a task with itself in another seed, what sharing could reach.

    Args:
        measures: Of a `TransferStudy`.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    axis = _axis(axis, (5.5, 3.8))
    layers = list(measures.similarity)
    for number, (i, j, name) in enumerate(_pairs(measures)):
        axis.plot(
            layers,
            [measures.similarity[layer][i, j] for layer in layers],
            **_style(number),
            label=name,
        )
    own = [np.nanmean(np.diag(measures.similarity[layer])) for layer in layers]
    axis.plot(layers, own, color="0.2", linewidth=0.8, label="same task, other seed")
    axis.set_xticks(layers)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("layer, from the input on")
    axis.set_ylabel("linear CKA")
    axis.set_title("How alike networks for one task are", fontsize=10)
    _legend(axis)
    return axis


def plot_groups(groups: Sequence[Sequence[str]], axis: Any = None) -> Any:
    """Draws groups of tasks, a box for each network.

    Args:
        groups: Lists of names, such as those of `group_tasks`.
        axis: A matplotlib `Axes`. Defaults to one of its own.

    Returns:
        The `Axes`.
    """
    from matplotlib.patches import FancyBboxPatch

    axis = _axis(axis, (5.5, 1.0 + 0.7 * len(groups)))
    widest = max(map(len, groups))
    for row, group in enumerate(groups):
        axis.add_patch(
            FancyBboxPatch(
                (-0.4, row - 0.3),
                len(group) - 0.2,
                0.6,
                boxstyle="round,pad=0.02",
                facecolor="0.93",
                edgecolor=_GAIN,
            )
        )
        for place, task in enumerate(group):
            axis.text(place, row, task, ha="center", va="center")
    axis.set_xlim(-0.6, widest - 0.3)
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.set_yticks(
        range(len(groups)), [f"network {n}" for n in range(1, len(groups) + 1)]
    )
    axis.set_xticks([])
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)
    axis.set_title("Groups by affinity", fontsize=10)
    return axis


def _axis(axis: Any, size: tuple[float, float]) -> Any:
    if axis is not None:
        return axis
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").add_subplot()


def _style(number: int) -> dict[str, Any]:
    """Returns how a line is told from others, without color."""
    return {
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number % len(_LINES)],
        "markersize": 5,
    }


def _reach(interval: MeanAndInterval) -> tuple[float, float]:
    """Returns how far an interval reaches to both sides, 0 where it has no end."""
    reach = interval.half_width
    return (reach, reach) if np.isfinite(reach) else (0.0, 0.0)


def _pairs(measures: TransferMeasures) -> list[tuple[int, int, str]]:
    names = measures.task_names
    return [
        (i, j, f"{names[i]}, {names[j]}")
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]


def _legend(axis: Any) -> None:
    lines = axis.get_legend_handles_labels()[1]
    axis.legend(fontsize=7, ncols=1 + len(lines) // 7)


def _heat_map(
    axis: Any, values: np.ndarray, names: Sequence[str], limit: float, text: str
) -> None:
    axis.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit)
    for place in np.ndindex(*values.shape):
        value = values[place]
        if np.isfinite(value):
            light = abs(value) < 0.6 * limit
            axis.text(
                *place[::-1],
                text.format(value),
                ha="center",
                va="center",
                fontsize=8,
                color="black" if light else "white",
            )
    axis.set_xticks(range(len(names)), list(names), rotation=20, ha="right")
    axis.set_yticks(range(len(names)), list(names))
