"""Which tasks help each other: trains them alone, together, and in between."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mtl.analysis.advice import Advice, advise
from keras_mtl.analysis.fingerprint import fingerprint_of_data, made_by
from keras_mtl.analysis.study_plan import StudyPlan, Variant, variants_of
from keras_mtl.analysis.study_progress import StudyProgress
from keras_mtl.analysis.study_run import (
    PLAIN,
    WIDE,
    Run,
    RunRecord,
    arguments_of,
    data_of,
    train,
)
from keras_mtl.analysis.task_groups import group_tasks
from keras_mtl.analysis.transfer_measures import (
    TransferMeasures,
    best_epoch,
    measure,
    percent_better,
)
from keras_mtl.analysis.transfer_report import TransferReport, rank_agreement
from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.data.only_tasks import task_names_of
from keras_mtl.metrics.metric_direction import is_higher_better
from keras_mtl.models import MultiTaskModel

REMEDIES = {
    "scale_invariant": {"weighting": "scale_invariant"},
    "upgrad": {"aggregator": "upgrad"},
}
"""What is tried against unequal losses and against conflict, by its name."""


class TransferStudy:
    """Finds out which tasks help each other, and what to do about those that do not.

    It trains each task alone, all of them together, and what lies between, several
    seeds each, with the same rows, the same batches and the same number of steps:

    - alone, and all together, as `build` makes them;
    - all together with a wider trunk (if `build` takes a `width`), to see whether
      capacity is what is missing;
    - all together with remedies: a weighting, an aggregator;
    - each pair, and all but one;
    - alone and together on parts of the rows, a learning curve.

    What is done is written to `directory` and not done again while the layers, what
    they are compiled with, the data and the arguments of `fit` stay as they are: stop
    it and run it again, with more seeds, or with more of the above. (Of a dataset only
    its kind is known: give another one another folder.)

    Args:
        build: Function of a list of task names, which returns a compiled
            `MultiTaskModel` for these tasks. It may have an argument `width`, a factor
            for the units that tasks share, and the names of `settings`.
        data: `(x, y)` or `(x, y, sample_weight)` of arrays, with labels by task, or a
            dataset of such batches.
        validation_data: The same, for validation.
        seeds: Integer, trainings of each kind. Defaults to 3.
        directory: Folder of what is done. Defaults to `"study"`.
        metrics: Dict by task of the name of a metric in the logs of `fit`, without
            `val_`. Defaults to the loss of each task.
        higher_is_better: Dict by metric. Defaults to `None`: by its name.
        settings: List of dicts of further arguments of `build`, such as learning rates.
            Every company of tasks is tried with each of them on the first seed, and
            keeps the best: the same budget of tuning for all. Defaults to none.
        **fit_arguments: Arguments of `fit`, such as `epochs` and `batch_size`.

    Raises:
        ValueError: If there are fewer than two tasks, or `build` makes something else.

    Example:

    ```python
    def build(tasks, width=1.0):
        x = keras.Input((4,))
        h = keras.layers.Dense(int(8 * width), "relu")(x)
        outputs = {task: keras.layers.Dense(1)(h) for task in tasks}
        model = keras_mtl.MultiTaskModel(x, outputs)
        model.compile("adam", loss="mse")
        return model

    x = np.random.default_rng(0).normal(size=(64, 4))
    y = {"a": x[:, :1], "b": x[:, :1] + x[:, 1:2]}
    study = keras_mtl.analysis.TransferStudy(
        build, (x, y), (x, y), seeds=2, directory="study", epochs=2
    )
    study.run(remedies=None, fractions=(), verbose=0)
    for task, advice in study.advice().items():
        print(task, advice)
    print(study.measures().tasks["a"].gain)  # percent over the task alone
    ```

    Reference:
        Standley et al., "Which Tasks Should Be Learned Together in Multi-task
        Learning?", ICML 2020, https://arxiv.org/abs/1905.07553
    """

    def __init__(
        self,
        build: Callable[..., MultiTaskModel],
        data: Any,
        validation_data: Any,
        seeds: int = 3,
        directory: str | Path = "study",
        metrics: Mapping[str, str] | None = None,
        higher_is_better: Mapping[str, bool] | None = None,
        settings: Sequence[Mapping[str, Any]] | None = None,
        **fit_arguments: Any,
    ) -> None:
        self.build = build
        self.data = tuple(data) if isinstance(data, tuple | list) else (data,)
        self.validation_data = validation_data
        self.seeds = check_count("seeds", seeds)
        self.directory = Path(directory)
        self.task_names = task_names_of(data)
        if len(self.task_names) < 2:
            raise ValueError(
                "`data` must have labels of two tasks or more. "
                f"Received: {self.task_names}"
            )
        given = dict(metrics or {})
        unknown = [task for task in given if task not in self.task_names]
        if unknown:
            raise ValueError(
                f"`metrics` must be a dict by task of {self.task_names}. "
                f"Received: {unknown}"
            )
        self.metrics = {t: given.get(t, f"{t}_loss") for t in self.task_names}
        self.higher_is_better = {
            task: is_higher_better(name, task, higher_is_better)
            for task, name in self.metrics.items()
        }
        self.settings = [dict(each) for each in settings or [{}]]
        self.fit_arguments = {"verbose": 0, **fit_arguments}
        for name in ("x", "y", "sample_weight", "validation_data"):
            if name in fit_arguments:
                raise ValueError(
                    f"`{name}` is given by `data` and `validation_data`. "
                    f"Received: {name}=..."
                )
        self._data_fingerprint: str | None = None

    @property
    def takes_width(self) -> bool:
        """Whether `build` has an argument `width`."""
        parameters = inspect.signature(self.build).parameters.values()
        return any(
            p.name == "width" or p.kind is inspect.Parameter.VAR_KEYWORD
            for p in parameters
        )

    def run(
        self,
        pairs: bool = True,
        leave_one_out: bool = True,
        width: float | None = None,
        remedies: Mapping[str, Mapping[str, Any]] | None = REMEDIES,
        fractions: Sequence[float] | None = None,
        verbose: int = 1,
    ) -> "TransferStudy":
        """Trains what is missing.

        Args:
            pairs: Whether each pair of tasks is trained. Defaults to `True`.
            leave_one_out: Whether all tasks but one are trained, for each.
                Defaults to `True`.
            width: Float, the factor of the wider trunk. Defaults to `None`: the number
                of tasks, so that it is as wide as the networks for one task are
                together. Not done if `build` takes no `width`.
            remedies: Dict by name of arguments of `compile` that are changed.
                Defaults to a weighting by the inverse of losses and to UPGrad. `None`
                for none.
            fractions: Parts of the training rows, each less than 1, for the learning
                curve; as many steps as with all. Defaults to a quarter and a half if
                the data are arrays, else to none.
            verbose: 0 for silence. Defaults to 1: a progress bar with the time left, or
                a line for each training where there is no terminal.

        Returns:
            The study.

        Raises:
            ValueError: If parts are asked of data that are no arrays, a training
                diverges, or a factor is out of range.
        """
        in_arrays = len(self.data) > 1
        if fractions is None:
            fractions = (0.25, 0.5) if in_arrays else ()
        if fractions and not in_arrays:
            raise ValueError(
                "`fractions` are parts of arrays. "
                f"Received: fractions={fractions}, and data of {type(self.data[0])}"
            )
        for fraction in fractions:
            check_number("fractions", fraction, above=0)
            if fraction >= 1:
                raise ValueError(
                    "`fractions` must be less than 1; the whole is there anyway. "
                    f"Received: fractions={fractions}"
                )
        if width is not None:
            check_number("width", width, above=0)
            if not self.takes_width:
                raise ValueError(
                    "`build` must have an argument `width` to make a wider trunk. "
                    f"Received: width={width}"
                )
        elif self.takes_width:
            width = float(len(self.task_names))
        remedies = {name: dict(changed) for name, changed in (remedies or {}).items()}
        taken = [name for name in remedies if name in (PLAIN, WIDE)]
        if taken:
            raise ValueError(
                f"`remedies` must have other names than 'plain' and 'wide'. "
                f"Received: {taken}"
            )
        variants = variants_of(
            self.task_names,
            pairs,
            leave_one_out,
            width is not None,
            remedies,
            fractions,
        )
        with StudyProgress(
            len(variants) * (self.seeds + len(self.settings) - 1), verbose
        ) as progress:
            chosen = [
                self._train_variant(variant, width, remedies, progress)
                for variant in variants
            ]
        said = {name: str(changed) for name, changed in remedies.items()}
        plan = StudyPlan(variants, chosen, self.seeds, width, said)
        plan.write(self.directory)
        return self

    def measures(self) -> TransferMeasures:
        """Returns what the trainings say, as data.

        Raises:
            ValueError: Before `run`.
        """
        plan = StudyPlan.read(self.directory)
        records = {}
        for run in plan.runs:
            record = RunRecord.read(self.directory, run)
            if record is None:
                raise ValueError(
                    f"`run` must be called first. Received: no record of {run} in "
                    f"{self.directory}"
                )
            records[run.tasks, run.kind, run.fraction, run.seed] = record
        return measure(
            self.task_names,
            plan.seeds,
            self.metrics,
            self.higher_is_better,
            records,
            plan.width,
            list(plan.remedies),
        )

    def advice(self, margin: float = 1.0) -> dict[str, Advice]:
        """Returns what to do about each task; the rules are those of `advise`.

        Args:
            margin: Float, the percentage below which a difference does not matter.
                Defaults to 1.

        Raises:
            ValueError: Before `run`.
        """
        return advise(self.measures(), margin)

    def report(
        self,
        path: str | Path | None = None,
        max_networks: int | None = None,
        margin: float = 1.0,
        title: str = "Do these tasks help each other?",
    ) -> TransferReport:
        """Returns what came of the study, and writes it to a page.

        Args:
            path: File to write, `.html`: one file, which opens without a network.
                Defaults to `None`, none.
            max_networks: Integer, how many networks can be afforded, for the groups of
                tasks. Defaults to two, or three for six tasks or more; of two tasks
                there are no groups, unless it is given.
            margin: Float, the percentage below which a difference does not matter.
                Defaults to 1.
            title: String, of the page.

        Returns:
            A `TransferReport`, with `advice`, `measures`, `groups` and `frames()`.

        Raises:
            ValueError: Before `run`, or for a file of another kind.
        """
        measures = self.measures()
        names = list(self.task_names)
        grouped = max_networks is not None or len(names) > 2
        if max_networks is None:
            max_networks = 2 if len(names) < 6 else 3
        check_count("max_networks", max_networks)

        def groups(gains: np.ndarray | None) -> list[list[str]]:
            if not grouped or gains is None or not np.isfinite(gains).all():
                return []
            return group_tasks(gains, max_networks, names)

        affinity, transfer = measures.affinity, measures.transfer
        report = TransferReport(
            measures,
            advise(measures, margin),
            groups(affinity),
            groups(np.where(np.eye(len(names), dtype=bool), 0.0, transfer)),
            float("nan") if affinity is None else rank_agreement(affinity, transfer),
            self._commands(),
        )
        if path is not None:
            report.write(path, title)
        return report

    def _commands(self) -> str:
        """Returns what reproduces the study."""
        arguments = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        fit = {
            name: value
            for name, value in self.fit_arguments.items()
            if name not in ("verbose", "callbacks")
        }
        return (
            f"KERAS_BACKEND={keras.backend.backend()} python {arguments}\n"
            f"# {self.seeds} seeds, metrics {self.metrics}, fit {fit}"
        )

    def _train_variant(
        self,
        variant: Variant,
        width: float | None,
        remedies: Mapping[str, Mapping[str, Any]],
        progress: StudyProgress,
    ) -> int:
        """Trains with all seeds, and returns the number of the settings."""

        def trained(seed: int, setting: int) -> RunRecord:
            run = variant.run(seed, setting)
            with progress.of(run):
                return self._train_or_read(run, width, remedies, progress)

        found = [trained(0, setting) for setting in range(len(self.settings))]
        scores = [self._score(record, found[0]) for record in found]
        best = scores.index(max(scores))
        for seed in range(1, self.seeds):
            trained(seed, best)
        return best

    def _score(self, record: RunRecord, first: RunRecord) -> float:
        """Returns by how much a network is better than that of the first settings."""
        gains = [
            percent_better(
                best_epoch(record.validation[task], higher)[0],
                best_epoch(first.validation[task], higher)[0],
                higher,
            )
            for task, higher in self.higher_is_better.items()
            if task in record.run.tasks
        ]
        return sum(gains)

    def _train_or_read(
        self,
        run: Run,
        width: float | None,
        remedies: Mapping[str, Mapping[str, Any]],
        progress: StudyProgress,
    ) -> RunRecord:
        keras.utils.set_random_seed(run.seed)
        model = self._make(run, width, remedies)
        arguments = arguments_of(run, self.fit_arguments)
        names = [self.metrics[task] for task in run.tasks]
        if self._data_fingerprint is None:
            self._data_fingerprint = fingerprint_of_data(
                (self.data, self.validation_data)
            )
        made = made_by(model, names, self._data_fingerprint, arguments)
        known = RunRecord.read(self.directory, run, made)
        if known is not None:
            return known
        record = train(
            run,
            model,
            data_of(run, model, self.data, run.fraction),
            data_of(run, model, self.validation_data),
            self.metrics,
            run.tasks == tuple(self.task_names)
            and run.kind == PLAIN
            and run.fraction == 1.0
            and bool(model.shared_layers()),
            arguments,
        )
        record.write(self.directory, made)
        progress.trained(record.seconds)
        return record

    def _make(
        self,
        run: Run,
        width: float | None,
        remedies: Mapping[str, Mapping[str, Any]],
    ) -> MultiTaskModel:
        arguments = dict(self.settings[run.setting])
        if run.kind == WIDE:
            arguments["width"] = width
        model = self.build(list(run.tasks), **arguments)
        if not isinstance(model, MultiTaskModel):
            raise ValueError(
                "`build` must return a compiled `MultiTaskModel`. "
                f"Received: {type(model).__name__}"
            )
        if sorted(model.task_names) != sorted(run.tasks) or not model.compiled:
            raise ValueError(
                f"`build` must return a compiled model of the tasks {list(run.tasks)}. "
                f"Received: compiled={model.compiled}, tasks {model.task_names}"
            )
        if run.kind in remedies:
            model.compile(**{**model.compile_arguments, **remedies[run.kind]})
        return model
