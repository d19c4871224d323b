"""Pictures of what a search has found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mtl.pages import Picture
from keras_mtl.tuning.search_results import TrialResult, as_numbers, said
from keras_mtl.tuning.tree_drawing import draw_tree

_AXES = 8
"""Choices that are drawn side by side."""
_BAR = "#0072b2"


def picture_of_all(
    results: Sequence[TrialResult],
    objective: Any,
    importance: Mapping[str, float],
    top: int,
) -> Any:
    """Returns one figure of a search, for a file of its own.

    Args:
        results: Trials, the best first.
        objective: The objective of the search.
        importance: Dict of how much each choice mattered, empty if it is not known.
        top: Integer, how many trees are drawn.
    """
    from matplotlib.figure import Figure

    trees = _best_trees(results, top)
    figure = Figure(figsize=(12, 11 if trees else 7.5), layout="constrained")
    rows = figure.add_gridspec(3 if trees else 2, 1)
    curve, bars = figure.add_subfigure(rows[0]).subplots(1, 2, width_ratios=[3, 2])
    _draw_best_so_far(curve, results, objective)
    _draw_importance(bars, importance, results)
    names = _shown_choices(importance, results)
    _draw_choices(figure.add_subfigure(rows[1]), results, objective, names)
    if trees:
        axes = figure.add_subfigure(rows[2]).subplots(1, top, squeeze=False)[0]
        for axis, result in zip(axes, trees, strict=False):
            _draw_tree(axis, result)
        for axis in axes[len(trees) :]:
            axis.set_axis_off()
    return figure


def pictures_of_page(
    results: Sequence[TrialResult],
    objective: Any,
    importance: Mapping[str, float],
    top: int,
) -> list[Picture]:
    """Returns the parts of that figure, each by itself, for a page.

    Args:
        results: Trials, the best first.
        objective: The objective of the search.
        importance: Dict of how much each choice mattered, empty if it is not known.
        top: Integer, how many trees are drawn.
    """
    from matplotlib.figure import Figure

    def figure(width: float, height: float) -> Any:
        return Figure(figsize=(width, height), layout="constrained")

    curve, bars, choices = figure(5.5, 3.8), figure(5.5, 3.8), figure(11, 3.8)
    _draw_best_so_far(curve.add_subplot(), results, objective)
    _draw_importance(bars.add_subplot(), importance, results)
    names = _shown_choices(importance, results)
    _draw_choices(choices, results, objective, names)
    pictures = [
        Picture(curve, f"The best {objective.name} so far, from trial to trial"),
        Picture(bars, f"How much of the variance goes with each choice: {_few(names)}"),
        Picture(choices, f"Each trial as a line through {_few(names)}", wide=True),
    ]
    for result in _best_trees(results, top):
        tree = figure(5.5, 0.6 * len(result.tree.levels) + 1.6)
        _draw_tree(tree.add_subplot(), result)
        shown = f"Tree of trial {result.trial_id}: {result.tree}"
        pictures.append(Picture(tree, shown))
    return pictures


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _best_trees(results: Sequence[TrialResult], top: int) -> list[TrialResult]:
    return [r for r in results if r.tree is not None and r.score is not None][:top]


def _shown_choices(
    importance: Mapping[str, float], results: Sequence[TrialResult]
) -> list[str]:
    return (list(importance) or _varied(results))[:_AXES]


def _draw_tree(axis: Any, result: TrialResult) -> None:
    draw_tree(result.tree, axis=axis)
    kind = result.hyperparameters.get("sharing", "")
    axis.set_title(f"trial {result.trial_id}: {result.score:.4g}\n{kind}", fontsize=9)


def _draw_best_so_far(
    axis: Any, results: Sequence[TrialResult], objective: Any
) -> None:
    done = sorted(
        (r for r in results if r.score is not None), key=lambda result: result.number
    )
    numbers = [result.number + 1 for result in done]
    scores = [result.score for result in done]
    best = np.maximum if objective.direction == "max" else np.minimum
    axis.plot(numbers, scores, "o", color="0.6", markersize=4, label="trial")
    if done:
        axis.step(
            numbers, best.accumulate(scores), where="post", color=_BAR, label="best"
        )
        low, high = min(best.accumulate(scores)), max(best.accumulate(scores))
        low, high = min(low, float(np.median(scores))), max(high, np.median(scores))
        if high > low:  # What is far worse than most is left out of sight.
            margin = 0.5 * (high - low)
            axis.set_ylim(
                max(low - margin, min(scores) - 0.1 * margin),
                min(high + margin, max(scores) + 0.1 * margin),
            )
        axis.legend(fontsize=8)
    axis.set_xlabel("trial")
    axis.set_ylabel(objective.name)
    axis.set_title("Best so far", fontsize=10)


def _draw_importance(
    axis: Any, importance: Mapping[str, float], results: Sequence[TrialResult]
) -> None:
    shown = list(importance.items())[:_AXES][::-1]
    axis.set_title("What mattered", fontsize=10)
    if not shown:
        few = sum(result.score is not None for result in results) < 4
        said = "after 4 completed trials" if few else "all trials made the same choices"
        axis.text(0.5, 0.5, said, ha="center", color="0.5")
        axis.set_axis_off()
        return
    axis.barh([name for name, _ in shown], [max(v, 0) for _, v in shown], color=_BAR)
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlabel("part of the variance of the score")


def _varied(results: Sequence[TrialResult]) -> list[str]:
    """Returns the choices that differ between trials."""
    names = dict.fromkeys(
        name
        for result in results
        for name in result.hyperparameters
        if not name.startswith("tuner/")
    )
    return [
        name
        for name in names
        if len({str(result.hyperparameters.get(name)) for result in results}) > 1
    ]


def _draw_choices(
    part: Any, results: Sequence[TrialResult], objective: Any, names: Sequence[str]
) -> None:
    """Draws a line through the choices of each completed trial."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axis = part.subplots()
    axis.set_title("Trials through their choices", fontsize=10)
    done = [result for result in results if result.score is not None]
    if not done or not names:
        axis.set_axis_off()
        return
    columns = {
        name: _places([result.hyperparameters.get(name) for result in done])
        for name in names
    }
    ranks = np.linspace(1, 0, len(done)) if len(done) > 1 else [1.0]
    colors = colormaps["viridis"]
    # The best last, on top of the others.
    for row in reversed(range(len(done))):
        heights = [columns[name][0][row] for name in names]
        axis.plot(
            range(len(names)),
            heights,
            color=colors(ranks[row]),
            linewidth=2.5 if row < 3 else 1,
            alpha=1 if row < 3 else 0.5,
        )
    for place, name in enumerate(names):
        axis.axvline(place, color="0.8", linewidth=0.8, zorder=0)
        for height, text in columns[name][1]:
            axis.text(
                place + 0.02,
                height,
                text,
                fontsize=7,
                va="center",
                bbox={
                    "facecolor": "white",
                    "edgecolor": "none",
                    "alpha": 0.7,
                    "pad": 1,
                },
            )
    axis.set_xticks(range(len(names)), names, fontsize=8, rotation=12, ha="right")
    axis.set_yticks([])
    axis.set_xlim(-0.2, len(names) - 0.6)
    bar = part.colorbar(ScalarMappable(Normalize(0, 1), colors), ax=axis, pad=0.01)
    bar.set_ticks([0, 1], labels=["worst", "best"])
    bar.set_label(f"rank by {objective.name}", fontsize=8)


def _places(values: list[Any]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Returns heights from 0 to 1, and what is written at some of them."""
    numbers = np.array(as_numbers(values))
    known = [value for value in values if value is not None]
    real = all(isinstance(v, float) for v in known) and len(set(known)) > 5
    there = np.array([value is not None for value in values])
    if real and min(known) > 0 and max(known) > 30 * min(known):
        numbers[there] = np.log(numbers[there])
        if not there.all():
            numbers[~there] = numbers[there].min() - 0.1 * (np.ptp(numbers[there]) or 1)
    low, span = numbers.min(), np.ptp(numbers)
    heights = (numbers - low) / (span or 1)
    marked = sorted(dict(zip(map(float, heights), values, strict=True)).items())
    if real:  # The least, the greatest, and where none is.
        least = 1 if marked[0][1] is None else 0
        marked = [*marked[: least + 1], marked[-1]]
        if marked[-1][0] - marked[-2][0] < 0.05:
            marked = marked[:-1]
    return heights, [(height, said(value)) for height, value in marked]
