"""One training of a transfer study, and what is kept of it."""

import copy
import dataclasses
import gc
import hashlib
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mtl.analysis.gradient_conflict import GradientConflict
from keras_mtl.analysis.representations import centred_kernels
from keras_mtl.analysis.task_affinity import TaskAffinity
from keras_mtl.data.only_tasks import only_tasks
from keras_mtl.models import MultiTaskModel

PLAIN, WIDE = "plain", "wide"
_ROWS_OF_REPRESENTATIONS = 256


@dataclasses.dataclass(frozen=True)
class Run:
    """Which training it is.

    Attributes:
        tasks: Names of the tasks that are trained together.
        seed: The seed.
        kind: `"plain"`, `"wide"`, or the name of a remedy.
        fraction: Part of the training rows.
        setting: Number of the settings that `build` is given.
    """

    tasks: tuple[str, ...]
    seed: int
    kind: str = PLAIN
    fraction: float = 1.0
    setting: int = 0

    @property
    def name(self) -> str:
        """A name for its files: readable, and another one for each run."""
        of_run = json.dumps(dataclasses.astuple(self))
        parts = ["+".join(self.tasks)[:60]]
        parts += [] if self.kind == PLAIN else [self.kind]
        parts += [] if self.fraction == 1.0 else [str(self.fraction)]
        text = re.sub(r"[^\w.+-]", "_", "_".join(parts))
        digest = hashlib.sha256(of_run.encode()).hexdigest()[:8]
        return f"{text}_seed{self.seed}_{digest}"

    def __str__(self) -> str:
        said = " + ".join(self.tasks)
        if self.kind != PLAIN:
            said += f", {self.kind}"
        if self.fraction != 1.0:
            said += f", {self.fraction:.0%} of the rows"
        if self.setting:
            said += f", setting {self.setting}"
        return f"{said}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What is kept of a training.

    Attributes:
        run: Which it is.
        train: By task, the metric on the training data, epoch by epoch.
        validation: By task, the metric on the validation data, epoch by epoch.
        seconds: Of training.
        parameters: Number of parameters.
        layers: Names of the shared layers and `"all shared"`, of the joint network.
        arrays: Of the joint network `cosines` `(epochs, L + 1, T, T)`, and
            `conflict_rate`, `norms`, `steps`, `look_ahead` and `first_order`; of a
            network for one task the centred kernels of its layers, `kernel_<i>`.
    """

    run: Run
    train: Mapping[str, Sequence[float]]
    validation: Mapping[str, Sequence[float]]
    seconds: float
    parameters: int
    layers: Sequence[str] = ()
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def write(self, folder: Path, made_by: str) -> None:
        """Writes it, the numbers last, so that it is there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{self.run.name}.npz.part", "wb") as file:
            np.savez_compressed(file, **self.arrays)
        (folder / f"{self.run.name}.npz.part").replace(folder / f"{self.run.name}.npz")
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        said.pop("arrays")
        said["run"] = dataclasses.asdict(self.run)
        written = folder / f"{self.run.name}.json.part"
        written.write_text(json.dumps({"made_by": made_by, **said}))
        written.replace(folder / f"{self.run.name}.json")

    @classmethod
    def read(
        cls, folder: Path, run: Run, made_by: str | None = None
    ) -> "RunRecord | None":
        """Returns a record, or `None` where there is none that was made by the same.

        Args:
            folder: The folder of records.
            run: Which.
            made_by: Fingerprint of what it depends on, or `None` for any.
        """
        path = folder / f"{run.name}.json"
        if not path.exists():
            return None
        said = json.loads(path.read_text())
        if said.pop("made_by") != made_by and made_by is not None:
            return None
        with np.load(folder / f"{run.name}.npz") as arrays:
            return cls(**{**said, "run": run, "arrays": dict(arrays)})


def train(
    run: Run,
    model: MultiTaskModel,
    data: tuple[Any, ...],
    validation_data: tuple[Any, ...],
    metrics: Mapping[str, str],
    measured: bool,
    fit_arguments: Mapping[str, Any],
) -> RunRecord:
    """Trains a model, and returns what is kept of it.

    Args:
        run: Which training it is.
        model: The compiled model.
        data: Arguments `x`, `y` and `sample_weight` of `fit`, those of its tasks alone.
        validation_data: The same for validation.
        metrics: By task, the name of a metric in the logs, without `val_`.
        measured: Whether gradients are measured.
        fit_arguments: Further arguments of `fit`.

    Raises:
        ValueError: If a metric is not in the logs, or is finite in no epoch.
    """
    arguments = dict(fit_arguments)
    callbacks = [copy.deepcopy(each) for each in arguments.pop("callbacks", None) or []]
    conflict, affinity = GradientConflict(), TaskAffinity()
    if measured:
        callbacks += [conflict, affinity]
    began = time.perf_counter()
    x, *labels = data
    logs = model.fit(
        x,
        *labels[:1],
        sample_weight=labels[1] if len(labels) > 1 else None,
        validation_data=validation_data if labels else validation_data[0],
        callbacks=callbacks,
        **arguments,
    ).history
    seconds = time.perf_counter() - began
    found: dict[str, dict[str, list[float]]] = {"": {}, "val_": {}}
    for task in run.tasks:
        for prefix, by_task in found.items():
            name = f"{prefix}{metrics[task]}"
            if name not in logs:
                raise ValueError(
                    "`metrics` must be names of logs of `fit`, without 'val_'. "
                    f"Received: {metrics[task]!r}, and the logs are {sorted(logs)}"
                )
            by_task[task] = [float(value) for value in logs[name]]
        if not any(map(math.isfinite, found["val_"][task])):
            raise ValueError(
                f"The training of {run} has diverged: "
                f"val_{metrics[task]} is finite in no epoch."
            )
    arrays, layers = {}, []
    if measured:
        arrays, layers = _measured(conflict, affinity)
    elif len(run.tasks) == 1 and run.kind == PLAIN and run.fraction == 1.0:
        arrays = centred_kernels(model, validation_data[0], _ROWS_OF_REPRESENTATIONS)
    parameters = model.count_params()
    del model
    gc.collect()
    return RunRecord(run, found[""], found["val_"], seconds, parameters, layers, arrays)


def _measured(
    conflict: GradientConflict, affinity: TaskAffinity
) -> tuple[dict[str, np.ndarray], list[str]]:
    arrays = {
        "cosines": np.stack([epoch.cosines for epoch in conflict.history]),
        "conflict_rate": conflict.total.conflict_rate,
        "mean_cosines": conflict.total.cosines,
        "norms": conflict.total.norms,
        "steps": conflict.total.steps,
        "look_ahead": affinity.total.look_ahead,
        "first_order": affinity.total.first_order,
    }
    return arrays, conflict.layer_names


def arguments_of(run: Run, fit_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `fit`: more epochs of fewer rows are as many steps."""
    arguments = dict(fit_arguments)
    if run.fraction != 1.0:
        epochs = arguments.get("epochs", 1)
        arguments["epochs"] = max(1, round(epochs / run.fraction))
    return arguments


def data_of(
    run: Run, model: MultiTaskModel, data: Any, fraction: float = 1.0
) -> tuple[Any, ...]:
    """Returns the inputs and labels that a model reads, and a part of their rows.

    Args:
        run: Which training it is.
        model: Its model.
        data: Arguments `x`, `y` and `sample_weight` of `fit`, or a dataset.
        fraction: The part, of arrays.
    """
    data = tuple(data) if isinstance(data, tuple | list) else (data,)
    found = only_tasks(data, run.tasks)
    x, *rest = found if isinstance(found, tuple) else (found,)
    if len(data) == 1:
        return (x,)
    if isinstance(x, Mapping) and isinstance(getattr(model, "input", 0), Mapping):
        x = {name: x[name] for name in model.input}
    if fraction == 1.0:
        return (x, *rest)
    rows = len(keras.tree.flatten(x)[0])
    # The same rows for all companies of a seed; more of them has those of fewer.
    order = np.random.default_rng(run.seed).permutation(rows)
    kept = np.sort(order[: max(1, math.ceil(fraction * rows))])
    return keras.tree.map_structure(
        lambda each: None if each is None else np.asarray(each)[kept], (x, *rest)
    )
