"""A page, or a picture, of what a search has found."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_mtl.argument_checks import check_count
from keras_mtl.tuning.search_results import (
    TrialResult,
    as_numbers,
    choice_importance,
    trial_results,
)
from keras_mtl.tuning.tree_drawing import draw_tree

_AXES = 8
"""Choices that are drawn side by side."""
_BAR = "#0072b2"


def search_report(tuner: Any, path: Any, title: str = "Search", top: int = 4) -> Path:
    """Writes a report of a search: an HTML page of one file, or a PNG picture.

    Both have the best score so far from trial to trial, how much each choice mattered
    (`choice_importance`, after 4 completed trials), all trials as lines through their
    choices, of the color of their score, and the sharing trees of the best. The page
    also has the leaderboard: each trial with its score and spread, parameters, times,
    architecture and choices, and those that failed with the reason.

    Needs matplotlib (the extra `recipes`).

    Args:
        tuner: A tuner, after its search or reloaded from its folder.
        path: File to write, `.html` or `.png`.
        title: String. Defaults to `"Search"`.
        top: Integer, trees that are drawn. Defaults to 4.

    Returns:
        The path.

    Raises:
        ValueError: If the file is of another kind, or there is no trial.

    Example:

    ```python
    import keras_tuner

    space = keras_mtl.tuning.SharingHyperModel(
        keras.Input((4,)),
        [lambda: keras.layers.Dense(8, "relu")],
        {"a": lambda: keras.layers.Dense(1), "b": lambda: keras.layers.Dense(1)},
        loss={"a": "mse", "b": "mse"},
    )
    tuner = keras_tuner.RandomSearch(space, "val_loss", max_trials=2, directory="p")
    x = np.random.default_rng(0).normal(size=(64, 4))
    y = {"a": x[:, :1], "b": x[:, 1:2]}
    tuner.search(x, y, validation_data=(x, y), verbose=0)
    keras_mtl.tuning.search_report(tuner, "search.html")
    ```
    """
    path = Path(path)
    check_count("top", top)
    if path.suffix not in (".html", ".png"):
        raise ValueError(
            f"`path` must be of a .html or .png file. Received: path={str(path)!r}"
        )
    results = trial_results(tuner)
    if not results:
        raise ValueError("`tuner` must have trials. Received: none")
    objective = tuner.oracle.objective
    completed = sum(result.score is not None for result in results)
    importance = choice_importance(tuner) if completed >= 4 else {}
    figure = _figure(results, objective, importance, top)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        figure.suptitle(title)
        figure.savefig(path, dpi=110)
    else:
        path.write_text(_page(results, objective, figure, title), encoding="utf-8")
    return path


# The picture


def _figure(
    results: Sequence[TrialResult],
    objective: Any,
    importance: Mapping[str, float],
    top: int,
) -> Any:
    from matplotlib.figure import Figure

    trees = [r for r in results if r.tree is not None and r.score is not None][:top]
    figure = Figure(figsize=(12, 11 if trees else 7.5), layout="constrained")
    rows = figure.add_gridspec(3 if trees else 2, 1)
    curve, bars = figure.add_subfigure(rows[0]).subplots(1, 2, width_ratios=[3, 2])
    _draw_best_so_far(curve, results, objective)
    _draw_importance(bars, importance, results)
    names = list(importance) or _varied(results)
    _draw_choices(figure.add_subfigure(rows[1]), results, objective, names[:_AXES])
    if trees:
        axes = figure.add_subfigure(rows[2]).subplots(1, top, squeeze=False)[0]
        for axis, result in zip(axes, trees, strict=False):
            draw_tree(result.tree, axis=axis)
            kind = result.hyperparameters.get("sharing", "")
            said = f"trial {result.trial_id}: {result.score:.4g}\n{kind}"
            axis.set_title(said, fontsize=9)
        for axis in axes[len(trees) :]:
            axis.set_axis_off()
    return figure


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
    return heights, [(height, _said(value)) for height, value in marked]


def _said(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# The page

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em;
       padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35em .6em;
         border-bottom: 1px solid #ddd }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
pre { margin: 0; font-size: 12px } img { max-width: 100% }
tr.failed { color: #999 }
"""
_COLUMNS = (
    ("", True),
    ("trial", True),
    ("score", True),
    ("parameters", True),
    ("ms a step", True),
    ("seconds", True),
    ("architecture", False),
    ("choices", False),
    ("status", False),
)


def _page(
    results: Sequence[TrialResult], objective: Any, figure: Any, title: str
) -> str:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    picture = base64.b64encode(written.getvalue()).decode()
    done = [result for result in results if result.score is not None]
    better = "higher" if objective.direction == "max" else "lower"
    seconds = sum(result.seconds or 0.0 for result in results)
    head = "".join(f"<th{_class(number)}>{name}</th>" for name, number in _COLUMNS)
    rows = "\n".join(_row(place, result) for place, result in enumerate(results, 1))
    title = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>
<body>
<h1>{title}</h1>
<p>{len(results)} trials, {len(done)} of them completed, {seconds:,.0f} seconds of
training. Score: {html.escape(objective.name)}, {better} is better.</p>
<img alt="Best so far, what mattered, choices and trees"
 src="data:image/png;base64,{picture}">
<h2>Leaderboard</h2>
<table>
<tr>{head}</tr>
{rows}
</table>
</body>
</html>
"""


def _row(place: int, result: TrialResult) -> str:
    score = "" if result.score is None else f"{result.score:.5g}"
    if result.spread is not None:
        score += f" ± {result.spread:.2g}"
    step = result.step_seconds
    choices = "\n".join(
        f"{name}: {_said(value)}"
        for name, value in sorted(result.hyperparameters.items())
        if not name.startswith("tuner/")
    )
    cells = (
        str(place),
        result.trial_id,
        score,
        "" if result.parameters is None else f"{result.parameters:,}",
        "" if step is None or not math.isfinite(step) else f"{1000 * step:.1f}",
        "" if result.seconds is None else f"{result.seconds:.1f}",
        f"<pre>{html.escape(result.sharing or '')}</pre>",
        f"<details><summary>{len(result.hyperparameters)}</summary>"
        f"<pre>{html.escape(choices)}</pre></details>",
        html.escape(f"{result.status.lower()} {result.message}".strip()),
    )
    data = "".join(
        f"<td{_class(number)}>{cell}</td>"
        for cell, (_, number) in zip(cells, _COLUMNS, strict=True)
    )
    failed = ' class="failed"' if result.score is None else ""
    return f"<tr{failed}>{data}</tr>"


def _class(number: bool) -> str:
    return ' class="number"' if number else ""
