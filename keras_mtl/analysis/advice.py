"""From the measures of a transfer study to what to do, by a table of rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mtl.analysis.transfer_measures import (
    ConflictMeasures,
    Remedied,
    TaskMeasures,
    TransferMeasures,
)
from keras_mtl.argument_checks import check_number
from keras_mtl.metrics.mean_and_interval import MeanAndInterval

KEEP, MORE, LESS = "keep", "share more", "share less"
BALANCE, WIDEN, LEAVE_OUT = "balance", "widen", "leave out"
UNKNOWN = "not enough evidence"


@dataclass(frozen=True)
class Advice:
    """What to do about a task, and why.

    Attributes:
        task: Its name.
        verdict: `"keep"`, `"share more"`, `"share less"`, `"balance"`, `"widen"`,
            `"leave out"` or `"not enough evidence"`.
        reason: The evidence in a sentence.
        layer: With `"share less"`, the first layer where gradients conflict, if there
            is one for certain.
        partners: Tasks that it gains from in pairs, the best first.
        remedy: With `"balance"`, the name of the remedy that helps most; or `"epochs"`,
            if it is stopping at one epoch for all that costs.
    """

    task: str
    verdict: str
    reason: str
    layer: str | None = None
    partners: tuple[str, ...] = ()
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Returns it as data, for JSON."""
        return {**vars(self), "partners": list(self.partners)}


def advise(measures: TransferMeasures, margin: float = 1.0) -> dict[str, Advice]:
    """Returns what to do about each task, by these rules; the first that fits holds.

    An interval is *a loss* if all of it is below 0 and its mean at most -margin, and
    *a gain* if all of it is above 0 and its mean at least the margin.

    | | what is measured | advice |
    |---|---|---|
    | 1 | together a loss, and so in every pair; the others gain by its absence | leave out |
    | 2 | together a loss; the wider trunk makes up for half of it or more, and is better for certain | widen |
    | 3 | together a loss; a remedy makes up for half of it or more, and is better for certain | balance, by the remedy that changes most |
    | 4 | together a loss | share less, from the first layer whose mean cosine with another task is below 0 for certain |
    | 5 | no loss, but a loss at the one epoch that is best for all, which is worse for certain | balance: stop, or weigh, by task |
    | 6 | a gain, and company takes something off the gap between training and validation | share more, with the tasks that it gains from in pairs |
    | 7 | the interval is above -margin | keep |
    | 8 | else | not enough evidence |

    If both rule 2 and rule 3 fit, the one that changes more holds. What makes another
    task worse is no remedy: worse for certain, or by the mean by a quarter of what this
    one gains, or by the mean where that task is at a loss with it.

    Args:
        measures: What a `TransferStudy` has measured.
        margin: Float, the percentage below which a difference does not matter.
            Defaults to 1.

    Returns:
        Dict by task of `Advice`.
    """  # noqa: E501
    check_number("margin", margin, at_least=0)
    return {
        task: _advise(found, measures, margin) for task, found in measures.tasks.items()
    }


def _advise(task: TaskMeasures, measures: TransferMeasures, margin: float) -> Advice:
    partners = _partners(task, margin)
    together = f"together {_percent(task.gain)} against alone"

    def advice(verdict: str, reason: str, **more: Any) -> Advice:
        return Advice(task.task, verdict, reason, partners=partners, **more)

    if is_loss(task.gain, margin):
        others = _gain_by_absence(task.task, measures)
        everywhere = len(task.pairs) > 1 and all(
            is_loss(pair, margin) for pair in task.pairs.values()
        )
        if everywhere and others is not None and is_gain(others, 0):
            return advice(
                LEAVE_OUT,
                f"{together}, a loss in every pair, and without it the others change "
                f"by {_percent(others)}",
            )
        helpful = _what_makes_up(task)
        free = [
            (name, found)
            for name, found in helpful
            if not _others_pay(task.task, name, measures, margin)
        ]
        if free:
            name, best = max(free, key=lambda item: item[1].change.mean)
            said = f"{together}; {_percent(best.gain)} "
            if name is None:
                return advice(WIDEN, said + "with a wider trunk")
            return advice(BALANCE, said + f"with {name}", remedy=name)
        at_a_cost = [name for name, _ in helpful]
        return _share_less(task, measures, together, at_a_cost, advice)
    at_one = task.gain_at_one_epoch
    if is_loss(at_one, margin) and task.epoch_change.lower > 0:
        return advice(
            BALANCE,
            f"{together} at its own best epoch ({task.epoch_together:.0f}), but "
            f"{_percent(at_one)} at the one that is best for all",
            remedy="epochs",
        )
    if is_gain(task.gain, margin):
        if task.gap_change.lower > 0:
            who = f", most with {partners[0]}" if partners else ""
            return advice(
                MORE,
                f"{together}{who}; alone it overfits, on its training data "
                f"{task.gap_alone.mean:.1f} % better than on validation data, together "
                f"{task.gap_together.mean:.1f} %",
            )
        return advice(KEEP, f"{together}, a gain")
    if task.gain.lower > -margin:
        return advice(KEEP, f"{together}, no loss that matters")
    return advice(
        UNKNOWN, f"{together}: the interval has losses that matter; train more seeds"
    )


def _share_less(
    task: TaskMeasures,
    measures: TransferMeasures,
    together: str,
    at_a_cost: Sequence[str | None],
    advice: Any,
) -> Advice:
    layer = None
    if measures.conflict is not None:
        layer = first_conflict(
            measures.conflict, list(measures.task_names).index(task.task)
        )
    where = (
        f"gradients conflict from layer {layer} on"
        if layer is not None
        else "no layer has a conflict for certain"
    )
    said = [f"{together}; {where}"]
    said += [
        f"{_called(name)} makes up for it, but other tasks pay"
        if name in at_a_cost
        else f"{_called(name)} does not make up for it"
        for name, _ in _tried(task)
    ]
    return advice(LESS, "; ".join(said), layer=layer)


def first_conflict(conflict: ConflictMeasures, task: int) -> str | None:
    """Returns the first layer where a task conflicts with another for certain.

    Args:
        conflict: Measures of gradients.
        task: Number of the task.
    """
    for place, layer in enumerate(conflict.layers[:-1]):
        upper = np.delete(conflict.upper[place, task], task)
        if (upper[np.isfinite(upper)] < 0).any():
            return layer
    return None


def is_loss(gain: MeanAndInterval, margin: float) -> bool:
    """Whether a gain is a loss for certain, and matters."""
    return gain.upper < 0 and gain.mean <= -margin


def is_gain(gain: MeanAndInterval, margin: float) -> bool:
    """Whether a gain is one for certain, and matters."""
    return gain.lower > 0 and gain.mean >= margin


def _tried(task: TaskMeasures) -> list[tuple[str | None, Remedied]]:
    """Returns what was tried against a loss, by name; the width by `None`."""
    wide = [] if task.wide is None else [(None, task.wide)]
    return [*wide, *task.remedies.items()]


def _called(name: str | None) -> str:
    return "a wider trunk" if name is None else name


def _what_makes_up(task: TaskMeasures) -> list[tuple[str | None, Remedied]]:
    """Returns what makes up for half of a loss, and is better for certain."""
    return [
        (name, found)
        for name, found in _tried(task)
        if found.change.lower > 0 and found.change.mean >= -0.5 * task.gain.mean
    ]


def _others_pay(
    task: str, name: str | None, measures: TransferMeasures, margin: float
) -> bool:
    """Whether a remedy for a task is at the cost of another."""
    changes = {
        other: found.wide if name is None else found.remedies[name]
        for other, found in measures.tasks.items()
    }
    gained = changes.pop(task).change.mean
    return any(
        found.change.upper < 0
        or found.change.mean < -0.25 * gained
        or (found.change.mean < 0 and is_loss(found.gain, margin))
        for found in changes.values()
    )


def _partners(task: TaskMeasures, margin: float) -> tuple[str, ...]:
    gains: Mapping[str, MeanAndInterval] = {
        other: pair for other, pair in task.pairs.items() if is_gain(pair, margin)
    }
    return tuple(sorted(gains, key=lambda other: -gains[other].mean))


def _gain_by_absence(task: str, measures: TransferMeasures) -> MeanAndInterval | None:
    """Returns the change of the task that gains most by the absence of another."""
    changes: Sequence[MeanAndInterval] = [
        found.without[task].change
        for name, found in measures.tasks.items()
        if name != task and task in found.without
    ]
    return max(changes, key=lambda change: change.lower, default=None)


def _percent(gain: MeanAndInterval) -> str:
    if not np.isfinite(gain.lower):
        return f"{gain.mean:+.1f} % (one seed)"
    return f"{gain.mean:+.1f} % ({gain.lower:+.1f} to {gain.upper:+.1f})"
