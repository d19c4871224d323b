"""What a search has found: a table of trials, and which choices mattered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from keras_mtl.tuning.sharing_tree import SharingTree
from keras_mtl.tuning.trial_record import read_record


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        trial_id: Its id.
        status: `"COMPLETED"` or `"FAILED"`, or what else Keras Tuner says.
        score: The objective, `None` if it failed.
        spread: Standard deviation of the objective over executions, `None` for one.
        hyperparameters: Dict of its values.
        parameters: Number of parameters.
        seconds: Seconds of all executions.
        step_seconds: Seconds of a training step.
        sharing: The architecture as text.
        tree: Its `SharingTree`.
        message: Why it failed, or was stopped; else empty.
        number: Its place in the order in which trials began, from 0.
    """

    trial_id: str
    status: str
    score: float | None
    spread: float | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    seconds: float | None = None
    step_seconds: float | None = None
    sharing: str | None = None
    tree: SharingTree | None = None
    message: str = ""
    number: int = 0


def trial_results(tuner: Any) -> list[TrialResult]:
    """Returns all trials of a search, the best first, those that failed last.

    Args:
        tuner: A tuner, after its search or reloaded from its folder.

    Example:

    ```python
    import keras_tuner

    space = keras_mtl.tuning.SharingHyperModel(
        keras.Input((4,)),
        [lambda: keras.layers.Dense(8, "relu")],
        {"a": lambda: keras.layers.Dense(1), "b": lambda: keras.layers.Dense(1)},
        loss={"a": "mse", "b": "mse"},
    )
    tuner = keras_tuner.RandomSearch(space, "val_loss", max_trials=1, directory="r")
    x = np.random.default_rng(0).normal(size=(64, 4))
    y = {"a": x[:, :1], "b": x[:, 1:2]}
    tuner.search(x, y, validation_data=(x, y), verbose=0)
    best = keras_mtl.tuning.trial_results(tuner)[0]
    print(best.score, best.parameters, best.step_seconds)
    ```
    """
    objective = tuner.oracle.objective
    began = {trial_id: i for i, trial_id in enumerate(tuner.oracle.start_order)}
    found = [
        _result(tuner, trial, began.get(trial.trial_id, len(began)))
        for trial in tuner.oracle.trials.values()
    ]
    sign = -1 if objective.direction == "max" else 1

    def order(result: TrialResult) -> tuple[bool, float]:
        return result.score is None, sign * (result.score or 0.0)

    return sorted(found, key=order)


def _result(tuner: Any, trial: Any, number: int) -> TrialResult:
    record = read_record(Path(tuner.get_trial_dir(trial.trial_id))) or {}
    executions = record.get("executions", [])
    executions = executions[-getattr(tuner, "executions_per_trial", 1) :]
    scores = [_best(execution, tuner.oracle.objective) for execution in executions]
    scores = [score for score in scores if score is not None and isfinite(score)]
    stopped = [e["stopped"] for e in executions if e["stopped"]]
    completed = trial.status == "COMPLETED" and trial.score is not None
    completed = completed and isfinite(trial.score)
    tree = record.get("tree")
    return TrialResult(
        trial.trial_id,
        str(trial.status),
        float(trial.score) if completed else None,
        stdev(scores) if len(scores) > 1 else None,
        dict(trial.hyperparameters.values),
        executions[-1]["parameters"] if executions else record.get("parameters"),
        sum(e["seconds"] for e in executions) if executions else None,
        mean(e["step_seconds"] for e in executions) if executions else None,
        record.get("sharing"),
        SharingTree.from_dict(tree) if tree else None,
        record.get("rejected")
        or record.get("failed")
        or _last_line(trial.message)
        or "; ".join(stopped),
        number,
    )


def _best(execution: Mapping[str, Any], objective: Any) -> float | None:
    values = [
        objective.get_value(logs)
        for logs in execution["epochs"].values()
        if objective.has_value(logs)
    ]
    if not values:
        return None
    return max(values) if objective.direction == "max" else min(values)


def _last_line(message: str | None) -> str | None:
    lines = (message or "").strip().splitlines()
    return lines[-1] if lines else None


def choice_importance(tuner: Any, seed: int = 0) -> dict[str, float]:
    """Returns how much each choice mattered, by a random forest.

    A forest is fitted to the scores of completed trials as a function of their
    hyperparameters, of which those that were not active have a value of their own. The
    importance of one is the part of the variance of the scores that goes with it, alone
    or together with others (its total effect): half of how much worse the forest
    explains the scores, in parts of their variance, when its values are shuffled. As
    what is due to several is counted for each of them, the sum may be more than 1. With
    few trials it is no more than a hint.

    Args:
        tuner: A tuner, after its search.
        seed: Integer, of forest and shuffling.

    Returns:
        Dict by hyperparameter, the most important first. Those with one value in all
        trials are left out.

    Raises:
        ValueError: If fewer than 4 trials were completed.

    Reference:
        Bénard, Da Veiga, Scornet, "MDA for random forests: inconsistency, and a
        practical solution via the Sobol-MDA", Biometrika 109, 2022,
        https://arxiv.org/abs/2102.13347
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    done = [r for r in trial_results(tuner) if r.score is not None]
    if len(done) < 4:
        raise ValueError(
            "The importance of choices needs 4 completed trials or more. "
            f"Received: {len(done)}"
        )
    settings = [result.hyperparameters for result in done]
    names = dict.fromkeys(name for each in settings for name in each)
    columns = {
        name: as_numbers([each.get(name) for each in settings])
        for name in names
        if not name.startswith("tuner/")
    }
    columns = {name: each for name, each in columns.items() if len(set(each)) > 1}
    if not columns:
        return {}
    x, y = np.array(list(columns.values())).T, np.array([r.score for r in done])
    forest = RandomForestRegressor(200, random_state=seed).fit(x, y)
    found = permutation_importance(forest, x, y, n_repeats=20, random_state=seed)
    # A shuffled value differs from its own by twice the variance that goes with it.
    mattered = dict(zip(columns, map(float, found.importances_mean / 2), strict=True))
    return dict(sorted(mattered.items(), key=lambda item: -item[1]))


def as_numbers(values: list[Any]) -> list[float]:
    """Returns numbers as they are, names by their place, and less where none is."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in known):
        low = min(known, default=0.0)
        return [low - 1.0 if value is None else float(value) for value in values]
    order = sorted(set(map(str, known)))
    places = {None: -1.0} | {value: float(order.index(str(value))) for value in known}
    return [places[value] for value in values]


def said(value: Any) -> str:
    """Returns the value of a choice as text, `-` for one that was not active."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
