"""Single-task networks, to compare a search with."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_mtl.analysis.fingerprint import fingerprint
from keras_mtl.argument_checks import check_count
from keras_mtl.data.only_tasks import of_tasks, only_tasks
from keras_mtl.metrics import RelativeImprovement
from keras_mtl.metrics.metric_direction import is_higher_better
from keras_mtl.tuning.sharing_plan import SharingPlan
from keras_mtl.tuning.sharing_tree import SharingTree

FILE = "baseline.json"
_BY_TASK = ("sample_weight", "class_weight")
_NOT_SETTINGS = ("verbose", "sample_weight", "callbacks")


@dataclass(frozen=True)
class Baselines:
    """What single-task networks reach, by task.

    Attributes:
        results: Dict by task, of a list over seeds, of dicts of results on the
            validation data, by the names of logs without `val_`.
        improvement: `metrics.RelativeImprovement` over their means.
        parameters: Dict by task of the parameters of its network.
    """

    results: dict[str, list[dict[str, float]]]
    improvement: RelativeImprovement
    parameters: dict[str, int] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The baseline of each metric, its mean over seeds."""
        return self.improvement.baselines


def single_task_baselines(
    space: Any,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any,
    metrics: Mapping[str, str | Sequence[str]] | None = None,
    higher_is_better: Mapping[str, bool] | None = None,
    hp: Any = None,
    seeds: int = 1,
    directory: str | Path | None = None,
    **fit_arguments: Any,
) -> Baselines:
    """Trains a network for each task alone, and returns what it reaches.

    The network is that of the search without company: the same blocks and head. Its
    result is that of the epoch with the best first metric on the validation data, as
    Keras Tuner takes the best epoch of a trial.

    With a `directory` each network is written there when it is done, its best weights
    and its results, and is not trained again while its layers, optimizer, loss and
    metrics, the arguments of `compile` and `fit` and the callbacks stay as they are.
    That the data are the same is for you to know: give each data set a folder.

    Args:
        space: A `SharingHyperModel`.
        x: As in `fit`: inputs, or a dataset of batches.
        y: As in `fit`: dict of labels by task.
        validation_data: As in `fit`.
        metrics: Dict by task of the name of a metric, or a list of names, as in the
            logs without `val_`, such as `{"income": "income_auc"}`. Defaults to the
            loss of each task.
        higher_is_better: Dict by metric. Defaults to `None`: by its name, lower for
            losses and errors, higher for accuracies, AUC, precision and recall.
        hp: Hyperparameters of the blocks and the optimizer. Defaults to their defaults.
        seeds: Integer, networks for each task. Defaults to 1.
        directory: Folder for what is done. Defaults to `None`: nothing is written.
        **fit_arguments: Further arguments of `fit`, such as `epochs`. Of
            `sample_weight` and `class_weight` by task each network gets its own;
            callbacks are copied for each.

    Returns:
        `Baselines`.

    Raises:
        ValueError: If a metric is not in the logs, or its direction is not known.

    Example:

    ```python
    space = keras_mtl.tuning.SharingHyperModel(
        keras.Input((4,)),
        [lambda: keras.layers.Dense(8, "relu")],
        {"a": lambda: keras.layers.Dense(1), "b": lambda: keras.layers.Dense(1)},
        loss={"a": "mse", "b": "mse"},
    )
    x = np.random.default_rng(0).normal(size=(64, 4))
    y = {"a": x[:, :1], "b": x[:, 1:2]}
    baselines = keras_mtl.tuning.single_task_baselines(
        space, x, y, validation_data=(x, y), epochs=2, verbose=0
    )
    print(sorted(baselines.values))  # ['a_loss', 'b_loss']
    ```
    """
    check_count("seeds", seeds)
    tasks = space.task_names
    metrics = {task: f"{task}_loss" for task in tasks} | dict(metrics or {})
    names = {t: [m] if isinstance(m, str) else list(m) for t, m in metrics.items()}
    unknown = [task for task in names if task not in tasks]
    if unknown or not all(names.values()):
        raise ValueError(
            f"`metrics` must be a dict by task of {tasks}, of names of logs. "
            f"Received: metrics={dict(metrics)!r}"
        )
    higher = {
        name: is_higher_better(name, task, higher_is_better)
        for task, of_task in names.items()
        for name in of_task
    }
    hp = keras_tuner.HyperParameters() if hp is None else hp
    folder = None if directory is None else Path(directory)
    results, parameters = {}, {}
    for task in tasks:
        results[task] = []
        for seed in range(seeds):
            found = _train_or_read(
                space,
                task,
                only_tasks((x, y), [task]),
                only_tasks(validation_data, [task]),
                names[task],
                higher[names[task][0]],
                hp,
                seed,
                folder and folder / f"{task}_{seed}",
                fit_arguments,
            )
            parameters[task] = found["parameters"]
            results[task].append(found["results"])
    means = {
        name: float(np.mean([seed[name] for seed in results[task]]))
        for task in tasks
        for name in names[task]
    }
    return Baselines(results, RelativeImprovement(means, higher, names), parameters)


def _train_or_read(
    space: Any,
    task: str,
    data: tuple[Any, Any],
    validation_data: Any,
    names: Sequence[str],
    higher: bool,
    hp: Any,
    seed: int,
    folder: Path | None,
    fit_arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the results and the size of one network."""
    keras.utils.set_random_seed(seed)
    tree = SharingTree.shared([task], len(space.blocks))
    model = space.build_plan(hp, SharingPlan(tree))
    arguments = {
        name: of_tasks(value, [task]) if name in _BY_TASK else value
        for name, value in fit_arguments.items()
    }
    callbacks = [copy.deepcopy(each) for each in arguments.pop("callbacks", None) or []]
    made_by = _made_by(space, task, model, names, arguments, callbacks)
    if folder is not None and (folder / FILE).exists():
        found = json.loads((folder / FILE).read_text())
        if found.get("made_by") == made_by:
            return found
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        callbacks.append(
            keras.callbacks.ModelCheckpoint(
                folder / "best.weights.h5",
                monitor=f"val_{names[0]}",
                mode="max" if higher else "min",
                save_best_only=True,
                save_weights_only=True,
            )
        )
    x, y = data
    logs = model.fit(
        x, y, validation_data=validation_data, callbacks=callbacks, **arguments
    ).history
    missing = [f"val_{name}" for name in names if f"val_{name}" not in logs]
    if missing:
        raise ValueError(
            "`metrics` must be names of logs without 'val_'. Received: "
            f"{missing}, and the logs are {sorted(logs)}"
        )
    values = logs[f"val_{names[0]}"]
    best = values.index(max(values) if higher else min(values))
    found = {
        "made_by": made_by,
        "parameters": model.count_params(),
        "results": {name: float(logs[f"val_{name}"][best]) for name in names},
    }
    if folder is not None:
        written = folder / f"{FILE}.part"
        written.write_text(json.dumps(found))
        written.replace(folder / FILE)
    return found


def _made_by(
    space: Any,
    task: str,
    model: keras.Model,
    names: Sequence[str],
    arguments: Mapping[str, Any],
    callbacks: Sequence[Any],
) -> str:
    """Returns a fingerprint of what a result depends on, but for the data."""
    settings = {
        "layers": [[layer.dtype_policy.name, layer] for layer in model.layers],
        "optimizer": model.optimizer,
        "loss": of_tasks(space.loss, [task]),
        "metrics": [list(names), of_tasks(space.metrics, [task])],
        "compile": space.compile_arguments,
        "callbacks": [[type(each).__name__, vars(each)] for each in callbacks],
        "fit": {k: v for k, v in arguments.items() if k not in _NOT_SETTINGS},
    }
    return fingerprint(settings)
