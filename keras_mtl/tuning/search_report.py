"""A page, or a picture, of what a search has found."""

import math
from pathlib import Path
from typing import Any

from keras_mtl.argument_checks import check_count
from keras_mtl.pages import write_page
from keras_mtl.tuning.search_pictures import picture_of_all, pictures_of_page
from keras_mtl.tuning.search_results import (
    TrialResult,
    choice_importance,
    said,
    trial_results,
)


def search_report(tuner: Any, path: Any, title: str = "Search", top: int = 4) -> Path:
    """Writes a report of a search: an HTML page of one file, or a PNG picture.

    Both have the best score so far from trial to trial, how much each choice mattered
    (`choice_importance`, after 4 completed trials), all trials as lines through their
    choices, of the color of their score, and the sharing trees of the best. The page
    also has the leaderboard: each trial with its score and spread, parameters, times,
    architecture and choices, and those that failed with the reason.

    Needs matplotlib, and the page Jinja2 (the extra `analysis`).

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
    if path.suffix == ".png":
        path.parent.mkdir(parents=True, exist_ok=True)
        figure = picture_of_all(results, objective, importance, top)
        figure.suptitle(title)
        figure.savefig(path, dpi=110)
        return path
    return write_page(
        path,
        "search.html",
        title=title,
        results=results,
        objective=objective,
        completed=completed,
        seconds=sum(result.seconds or 0.0 for result in results),
        pictures=pictures_of_page(results, objective, importance, top),
        steps=[_milliseconds(result.step_seconds) for result in results],
        choices=[_choices(result) for result in results],
    )


def _milliseconds(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return ""
    return f"{1000 * seconds:.1f}"


def _choices(result: TrialResult) -> list[str]:
    return [
        f"{name}: {said(value)}"
        for name, value in sorted(result.hyperparameters.items())
        if not name.startswith("tuner/")
    ]
