"""A study of transfer for people: a page, tables, and logs for TensorBoard."""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_mtl.analysis import transfer_plots
from keras_mtl.analysis.advice import Advice
from keras_mtl.analysis.data_frame import data_frame
from keras_mtl.analysis.transfer_measures import TransferMeasures
from keras_mtl.metrics.mean_and_interval import MeanAndInterval
from keras_mtl.pages import Picture, write_page


@dataclass(frozen=True)
class TransferReport:
    """What came of a `TransferStudy`.

    Attributes:
        measures: All that was measured.
        advice: Dict by task of `Advice`.
        groups: Groups of tasks by the affinities of the joint network, empty if not all
            were measured, and of two tasks unless they were asked for.
        groups_of_pairs: Groups by the gains of pairs, empty if not all were trained,
            and of two tasks unless they were asked for.
        agreement: Spearman's rank correlation of affinities and gains of pairs, NaN
            without one of them.
        commands: What reproduces it.
    """

    measures: TransferMeasures
    advice: dict[str, Advice]
    groups: list[list[str]]
    groups_of_pairs: list[list[str]]
    agreement: float
    commands: str

    def write(
        self, path: str | Path, title: str = "Do these tasks help each other?"
    ) -> Path:
        """Writes a page of one file, which opens without a network.

        Needs matplotlib and Jinja2 (the extra `analysis`).

        Args:
            path: File to write, `.html`.
            title: String.

        Returns:
            The path.

        Raises:
            ValueError: If the file is of another kind.
        """
        path = Path(path)
        if path.suffix != ".html":
            raise ValueError(
                f"`path` must be of a .html file. Received: path={str(path)!r}"
            )
        return write_page(
            path,
            "transfer.html",
            title=title,
            measures=self.measures,
            advices=list(self.advice.values()),
            pictures=[Picture(axis.figure, said) for _, axis, said in self._pictures()],
            notes=self._notes(),
            commands=self.commands,
        )

    def frames(self) -> dict[str, Any]:
        """Returns the figures as `pandas.DataFrame`s: `"tasks"`, `"transfer"`,
        `"conflict"`, `"curves"` and `"advice"`.
        """
        tasks = self.measures.tasks
        names = list(self.measures.task_names)
        rows = [
            {"task": t.task, "metric": t.metric, "measure": name, **_columns(interval)}
            for t in tasks.values()
            for name, interval in _intervals(t)
        ]
        frames = {
            "tasks": data_frame(rows, ["task", "metric", "measure", *_COLUMNS]),
            "transfer": data_frame(
                [
                    {"with": other, "task": t.task, **_columns(gain)}
                    for t in tasks.values()
                    for other, gain in t.pairs.items()
                ],
                ["with", "task", *_COLUMNS],
            ),
            "curves": data_frame(
                [
                    {"task": t.task, "part": part, **_columns(gain)}
                    for t in tasks.values()
                    for part, gain in t.curve.items()
                ],
                ["task", "part", *_COLUMNS],
            ),
            "advice": data_frame(
                [each.to_dict() for each in self.advice.values()],
                ["task", "verdict", "reason", "layer", "partners", "remedy"],
            ),
        }
        conflict = self.measures.conflict
        columns = ["layer", "task", "other", "cosine", "lower", "upper"]
        columns += ["conflict_rate"]
        frames["conflict"] = data_frame(
            []
            if conflict is None
            else [
                {
                    "layer": layer,
                    "task": names[i],
                    "other": names[j],
                    "cosine": conflict.cosines[place, i, j],
                    "lower": conflict.lower[place, i, j],
                    "upper": conflict.upper[place, i, j],
                    "conflict_rate": conflict.conflict_rate[place, i, j],
                }
                for place, layer in enumerate(conflict.layers)
                for i in range(len(names))
                for j in range(i + 1, len(names))
            ],
            columns,
        )
        return frames

    def to_tensorboard(self, log_dir: str | Path) -> None:
        """Writes gains and pictures as logs for TensorBoard.

        Args:
            log_dir: Folder of the logs.

        Raises:
            ImportError: Without TensorBoard, which the extra `tuner` brings.
        """
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(
                'Logs need TensorBoard: `pip install "keras_mtl[tuner]"`.'
            ) from error
        writer = EventFileWriter(str(log_dir))
        values = [
            Summary.Value(tag=f"{name}/{task.task}", simple_value=interval.mean)
            for task in self.measures.tasks.values()
            for name, interval in _intervals(task)
        ]
        for name, axis, _ in self._pictures():
            written = io.BytesIO()
            axis.figure.savefig(written, format="png", dpi=110)
            width, height = (axis.figure.get_size_inches() * 110).astype(int)
            image = Summary.Image(
                encoded_image_string=written.getvalue(),
                height=int(height),
                width=int(width),
            )
            values.append(Summary.Value(tag=f"transfer/{name}", image=image))
        summary = Summary(value=values)
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
        writer.close()

    def _pictures(self) -> Iterator[tuple[str, Any, str]]:
        """Yields names, axes, and what they show."""
        measures, plots = self.measures, transfer_plots
        names = ", ".join(measures.task_names)
        yield "gains", plots.plot_gains(measures), f"Gains of {names}"
        if np.isfinite(measures.transfer).any():
            axis = plots.plot_transfer(measures)
            yield "transfer", axis, "Gains of pairs of tasks as a matrix"
        if measures.conflict is not None:
            axis = plots.plot_conflict(measures)
            yield "conflict", axis, "Cosines of gradients, layer by layer"
            axis = plots.plot_conflict_over_time(measures)
            yield "conflict_over_time", axis, "Cosines of gradients, epoch by epoch"
        if any(len(task.curve) > 1 for task in measures.tasks.values()):
            axis = plots.plot_learning_curves(measures)
            yield "learning_curves", axis, "Gains by the size of the training data"
        axis = plots.plot_overfitting(measures)
        yield "overfitting", axis, "Gaps between training and validation"
        if measures.similarity and measures.seeds > 1:
            axis = plots.plot_similarity(measures)
            yield "similarity", axis, "Linear CKA of networks for one task, by layer"
        if self.groups:
            axis = plots.plot_groups(self.groups)
            said = "; ".join(" + ".join(group) for group in self.groups)
            yield "groups", axis, f"Groups by affinity: {said}"

    def _notes(self) -> list[str]:
        notes = []
        if self.groups and self.groups_of_pairs:
            same = sorted(map(sorted, self.groups)) == sorted(
                map(sorted, self.groups_of_pairs)
            )
            said = " | ".join(" + ".join(group) for group in self.groups_of_pairs)
            notes.append(
                f"Groups by the gains of pairs: {said}, "
                f"{'the same' if same else 'others than those by affinity'}."
            )
        if np.isfinite(self.agreement):
            notes.append(
                "Rank correlation of affinities in the joint network and gains of "
                f"pairs: {self.agreement:.2f}."
            )
        return notes


_COLUMNS = ("mean", "lower", "upper", "std", "seeds")


def _columns(interval: MeanAndInterval) -> dict[str, float]:
    return dict(zip(_COLUMNS, interval, strict=True))


def _intervals(task: Any) -> Iterator[tuple[str, MeanAndInterval]]:
    for name in (
        *("alone", "gain", "gain_at_one_epoch", "epoch_change"),
        *("gap_alone", "gap_together", "gap_change"),
    ):
        yield name, getattr(task, name)
    changed = {} if task.wide is None else {"wide": task.wide}
    for name, found in {**changed, **task.remedies}.items():
        yield f"gain_{name}", found.gain


def rank_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's rank correlation of two matrices beside their diagonals.

    Args:
        first: Matrix `(T, T)`.
        second: Matrix `(T, T)`. Places where one is NaN do not count.
    """
    there = ~np.eye(len(first), dtype=bool) & np.isfinite(first) & np.isfinite(second)
    values = [_ranks(matrix[there]) for matrix in (first, second)]
    if there.sum() < 3 or any(np.ptp(each) == 0 for each in values):
        return float("nan")
    return float(np.corrcoef(*values)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks, of equal values their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]
