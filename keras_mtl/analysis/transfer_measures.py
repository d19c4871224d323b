"""What the trainings of a transfer study say, in numbers with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from keras_mtl.analysis.representations import alignment
from keras_mtl.analysis.study_run import PLAIN, WIDE, RunRecord
from keras_mtl.metrics.mean_and_interval import MeanAndInterval, mean_and_interval

Records = Mapping[tuple[tuple[str, ...], str, float, int], RunRecord]
"""Records by tasks, kind, fraction and seed."""


@dataclass(frozen=True)
class Remedied:
    """What a change of the joint network does for a task.

    Attributes:
        gain: Percent over the network for the task alone.
        change: Percentage points over the joint network as it is.
    """

    gain: MeanAndInterval
    change: MeanAndInterval


@dataclass(frozen=True)
class TaskMeasures:
    """What company does for one task. Gains are percent over the task alone.

    A gain is that of the task's metric on the validation data, each network at its own
    best epoch for the task, positive is better; of each seed against the network for
    the task alone of the same seed. Intervals are of 95 %, over seeds.

    Attributes:
        task: Its name.
        metric: Name of its metric.
        alone: The metric of the task alone.
        gain: Of all tasks together.
        gain_at_one_epoch: The same, at the one epoch that is best for all tasks.
        epoch_change: The first less the second: what it costs to stop at one epoch.
        wide: With the wider trunk, if there is one.
        remedies: By name.
        pairs: Gains by the other task of a pair.
        without: Gains of all tasks but one, by the one, and what its absence changes.
        curve: By part of the training rows, the gain of all tasks together over the
            task alone on as many rows.
        gap_alone: How much better the task alone is on its training data than on the
            validation data, percent, the mean over the last quarter of the epochs.
        gap_together: The same of the joint network.
        gap_change: The first less the second: what company takes off the gap.
        epoch_alone: Mean of the best epochs of the task alone, from 1.
        epoch_together: Mean of its best epochs in the joint network.
    """

    task: str
    metric: str
    alone: MeanAndInterval
    gain: MeanAndInterval
    gain_at_one_epoch: MeanAndInterval
    epoch_change: MeanAndInterval
    wide: Remedied | None
    remedies: Mapping[str, Remedied]
    pairs: Mapping[str, MeanAndInterval]
    without: Mapping[str, Remedied]
    curve: Mapping[float, MeanAndInterval]
    gap_alone: MeanAndInterval
    gap_together: MeanAndInterval
    gap_change: MeanAndInterval
    epoch_alone: float
    epoch_together: float


@dataclass(frozen=True)
class ConflictMeasures:
    """Gradients of the joint network, means over seeds.

    Attributes:
        layers: Names of L shared layers, and `"all shared"`.
        cosines: Mean cosines `(L + 1, T, T)`.
        lower: Lower ends of their intervals over seeds.
        upper: Upper ends.
        conflict_rate: Parts of steps with a negative cosine, `(L + 1, T, T)`.
        norms: Norms of the gradients of the weighted losses `(L + 1, T)`.
        by_epoch: Mean cosines `(epochs, L + 1, T, T)`.
    """

    layers: Sequence[str]
    cosines: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    conflict_rate: np.ndarray
    norms: np.ndarray
    by_epoch: np.ndarray


@dataclass(frozen=True)
class TransferMeasures:
    """All that a study has measured.

    Attributes:
        task_names: The tasks.
        seeds: Number of trainings of each kind.
        tasks: `TaskMeasures` by task.
        transfer: Gains of pairs `(T, T)`: what the task of the row does for that of the
            column, percent; NaN where no pair was trained.
        conflict: `ConflictMeasures`, `None` if tasks share no variables.
        affinity: First-order affinities `(T, T)` of the joint network, rows the task
            that takes a step, `None` if tasks share no variables.
        look_ahead: The same by look-ahead.
        similarity: By number of layer, the linear CKA of the networks for two tasks
            alone, `(T, T)`, means over seeds; on the diagonal that of a task with
            itself in another seed.
        parameters: By company (names of tasks) and kind, the number of parameters.
        seconds: Of all trainings.
        width: Factor of the wider trunk.
    """

    task_names: Sequence[str]
    seeds: int
    tasks: Mapping[str, TaskMeasures]
    transfer: np.ndarray
    conflict: ConflictMeasures | None
    affinity: np.ndarray | None
    look_ahead: np.ndarray | None
    similarity: Mapping[int, np.ndarray]
    parameters: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    width: float | None = None


def best_epoch(values: Sequence[float], higher_is_better: bool) -> tuple[float, int]:
    """Returns the best value and its epoch, from 0; epochs that are NaN do not count.

    Args:
        values: A metric, epoch by epoch.
        higher_is_better: Whether more of it is better.
    """
    series = np.asarray(values, "float64")
    series = np.where(np.isfinite(series), series, np.nan)
    place = int(np.nanargmax(series) if higher_is_better else np.nanargmin(series))
    return float(series[place]), place


def percent_better(value: float, than: float, higher_is_better: bool) -> float:
    """Returns by how many percent a metric is better than another value of it.

    Args:
        value: The metric.
        than: The other value; of 0 the difference is in units in place of percent.
        higher_is_better: Whether more of it is better.
    """
    sign = 1.0 if higher_is_better else -1.0
    return sign * 100.0 * (value - than) / (abs(than) or 1.0)


def measure(
    task_names: Sequence[str],
    seeds: int,
    metrics: Mapping[str, str],
    higher_is_better: Mapping[str, bool],
    records: Records,
    width: float | None,
    remedies: Sequence[str],
) -> TransferMeasures:
    """Returns what records of trainings say.

    Args:
        task_names: The tasks.
        seeds: Number of trainings of each kind.
        metrics: Name of the metric by task.
        higher_is_better: By task.
        records: Records by tasks, kind, fraction and seed.
        width: Factor of the wider trunk, if there was one.
        remedies: Names of remedies.
    """
    return _Measuring(tuple(task_names), seeds, metrics, higher_is_better, records).all(
        width, remedies
    )


class _Measuring:
    """Compares records, seed by seed."""

    def __init__(
        self,
        tasks: tuple[str, ...],
        seeds: int,
        metrics: Mapping[str, str],
        higher: Mapping[str, bool],
        records: Records,
    ) -> None:
        self.tasks = tasks
        self.seeds = range(seeds)
        self.metrics = metrics
        self.higher = higher
        self.records = records

    def all(self, width: float | None, remedies: Sequence[str]) -> TransferMeasures:
        size = len(self.tasks)
        transfer = np.full((size, size), np.nan)
        for i, one in enumerate(self.tasks):
            for j, other in enumerate(self.tasks):
                if i != j and self._there(self._company(one, other)):
                    gains = self._gains(other, self._company(one, other))
                    transfer[i, j] = np.mean(gains)
        joint = [self.records[self.tasks, PLAIN, 1.0, seed] for seed in self.seeds]
        return TransferMeasures(
            self.tasks,
            len(self.seeds),
            {task: self._task(task, remedies) for task in self.tasks},
            transfer,
            _conflict(joint),
            _mean_of(joint, "first_order"),
            _mean_of(joint, "look_ahead"),
            self._similarity(),
            {
                " + ".join(record.run.tasks) + f", {record.run.kind}": record.parameters
                for record in self.records.values()
            },
            sum(record.seconds for record in self.records.values()),
            width,
        )

    def _task(self, task: str, remedies: Sequence[str]) -> TaskMeasures:
        gains = self._gains(task, self.tasks)
        at_one = self._gains_at_one_epoch(task)
        gap_alone, gap_together = (
            self._gaps(task, (task,)),
            self._gaps(task, self.tasks),
        )
        others = [other for other in self.tasks if other != task]
        without = {
            out: self._company(*(t for t in self.tasks if t != out)) for out in others
        }
        fractions = sorted({fraction for _, _, fraction, _ in self.records} - {1.0})
        return TaskMeasures(
            task,
            self.metrics[task],
            mean_and_interval(self._best(task, (task,), seed) for seed in self.seeds),
            mean_and_interval(gains),
            mean_and_interval(at_one),
            _difference(gains, at_one),
            self._remedied(task, gains, WIDE),
            {
                name: found
                for name in remedies
                if (found := self._remedied(task, gains, name)) is not None
            },
            {
                other: mean_and_interval(self._gains(task, self._company(task, other)))
                for other in others
                if self._there(self._company(task, other))
            },
            {
                out: Remedied(
                    mean_and_interval(self._gains(task, company)),
                    _difference(self._gains(task, company), gains),
                )
                for out, company in without.items()
                if self._there(company)
            },
            {
                fraction: mean_and_interval(
                    self._gains(task, self.tasks, fraction=fraction)
                )
                for fraction in [*fractions, 1.0]
            },
            mean_and_interval(gap_alone),
            mean_and_interval(gap_together),
            _difference(gap_alone, gap_together),
            1 + float(np.mean([self._epoch(task, (task,), s) for s in self.seeds])),
            1 + float(np.mean([self._epoch(task, self.tasks, s) for s in self.seeds])),
        )

    def _company(self, *tasks: str) -> tuple[str, ...]:
        """Returns tasks in the order of all."""
        return tuple(task for task in self.tasks if task in tasks)

    def _there(self, company: tuple[str, ...], kind: str = PLAIN) -> bool:
        return (company, kind, 1.0, self.seeds[0]) in self.records

    def _best(
        self,
        task: str,
        company: tuple[str, ...],
        seed: int,
        kind: str = PLAIN,
        fraction: float = 1.0,
    ) -> float:
        record = self.records[company, kind, fraction, seed]
        return best_epoch(record.validation[task], self.higher[task])[0]

    def _epoch(self, task: str, company: tuple[str, ...], seed: int) -> int:
        record = self.records[company, PLAIN, 1.0, seed]
        return best_epoch(record.validation[task], self.higher[task])[1]

    def _gains(
        self,
        task: str,
        company: tuple[str, ...],
        kind: str = PLAIN,
        fraction: float = 1.0,
    ) -> list[float]:
        return [
            percent_better(
                self._best(task, company, seed, kind, fraction),
                self._best(task, (task,), seed, PLAIN, fraction),
                self.higher[task],
            )
            for seed in self.seeds
        ]

    def _remedied(
        self, task: str, gains: Sequence[float], kind: str
    ) -> Remedied | None:
        if not self._there(self.tasks, kind):
            return None
        found = self._gains(task, self.tasks, kind)
        return Remedied(mean_and_interval(found), _difference(found, gains))

    def _gains_at_one_epoch(self, task: str) -> list[float]:
        """Returns gains at the epoch with the best mean gain of all tasks."""
        found = []
        for seed in self.seeds:
            record = self.records[self.tasks, PLAIN, 1.0, seed]
            by_epoch = {
                t: [
                    percent_better(value, self._best(t, (t,), seed), self.higher[t])
                    for value in record.validation[t]
                ]
                for t in self.tasks
            }
            means = np.mean([by_epoch[t] for t in self.tasks], axis=0)
            found.append(by_epoch[task][best_epoch(means, True)[1]])
        return found

    def _gaps(self, task: str, company: tuple[str, ...]) -> list[float]:
        found = []
        for seed in self.seeds:
            record = self.records[company, PLAIN, 1.0, seed]
            last = max(1, len(record.train[task]) // 4)
            on_train = float(np.mean(record.train[task][-last:]))
            value = float(np.mean(record.validation[task][-last:]))
            found.append(percent_better(on_train, value, self.higher[task]))
        return found

    def _similarity(self) -> dict[int, np.ndarray]:
        """Returns the mean CKA of networks for one task, by number of layer."""
        alone = {
            task: [
                self.records[(task,), PLAIN, 1.0, seed].arrays for seed in self.seeds
            ]
            for task in self.tasks
        }
        layers = set.intersection(*(set(a) for each in alone.values() for a in each))
        found = {}
        for name in layers:
            kernels = {t: [a[name] for a in each] for t, each in alone.items()}
            shapes = {kernel.shape for each in kernels.values() for kernel in each}
            if len(shapes) == 1:
                number = int(name.removeprefix("kernel_"))
                found[number] = self._alignments(kernels)
        return dict(sorted(found.items()))

    def _alignments(self, kernels: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
        size = len(self.tasks)
        found = np.full((size, size), np.nan)
        for i, one in enumerate(self.tasks):
            for j, other in enumerate(self.tasks):
                # Networks of two tasks are of two starts, as those of one task are.
                pairs = [
                    alignment(kernels[one][a], kernels[other][b])
                    for a in self.seeds
                    for b in self.seeds
                    if a != b
                ]
                if pairs:
                    found[i, j] = np.mean(pairs)
        return found


def _difference(first: Iterable[float], second: Iterable[float]) -> MeanAndInterval:
    return mean_and_interval(a - b for a, b in zip(first, second, strict=True))


def _conflict(joint: Sequence[RunRecord]) -> ConflictMeasures | None:
    if any("mean_cosines" not in record.arrays for record in joint):
        return None
    cosines = np.stack([record.arrays["mean_cosines"] for record in joint])
    lower, upper = (
        np.full(cosines.shape[1:], np.nan),
        np.full(cosines.shape[1:], np.nan),
    )
    for place in np.ndindex(*lower.shape):
        values = cosines[(slice(None), *place)]
        if np.isfinite(values).all():
            interval = mean_and_interval(values)
            lower[place] = max(interval.lower, -1.0)
            upper[place] = min(interval.upper, 1.0)
    epochs = min(len(record.arrays["cosines"]) for record in joint)
    return ConflictMeasures(
        joint[0].layers,
        cosines.mean(axis=0),
        lower,
        upper,
        _mean_of(joint, "conflict_rate"),
        _mean_of(joint, "norms"),
        np.mean([record.arrays["cosines"][:epochs] for record in joint], axis=0),
    )


def _mean_of(records: Sequence[RunRecord], name: str) -> np.ndarray | None:
    if any(name not in record.arrays for record in records):
        return None
    return np.mean([record.arrays[name] for record in records], axis=0)
