"""How much a step for one task helps another, from one joint run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_mtl.analysis.data_frame import data_frame
from keras_mtl.analysis.probe_callback import ProbeCallback
from keras_mtl.analysis.task_groups import group_tasks
from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.engine.gradient_probe import GradientProbe, ProbedBatch


@dataclass(frozen=True)
class Affinity:
    """How much tasks help each other: means over the steps measured.

    Arrays are `(T, T)`, rows the task that takes the step, columns the one whose loss
    is looked at. NaN where nothing was measured.

    Attributes:
        look_ahead: The part of the loss that the step took away.
        first_order: The same, as the gradients predict it.
        steps: In how many steps a pair was measured.
        look_aheads: In how many of those there was a look-ahead.
    """

    look_ahead: np.ndarray
    first_order: np.ndarray
    steps: np.ndarray
    look_aheads: np.ndarray


class TaskAffinity(ProbeCallback):
    """Measures how much a step for one task helps the others, while `fit` trains.

    The inter-task affinity of TAG: with the shared parameters θ, the gradient $g_i$ of
    the loss of task i by them, and a step size η, means over every n-th step of

    $$ Z_{ij} = \\frac{L_j(θ) - L_j(θ - η g_i)}{|L_j(θ)|}, \\qquad
       \\hat Z_{ij} = η \\frac{g_i \\cdot g_j}{|L_j(θ)|} $$

    on the same rows: the look-ahead, in which heads stay as they are, and its
    first-order form. Positive is help. Steps in which one of two tasks has no label, or
    the loss of the second is 0, do not count for the pair.

    The measurement is part of the compiled training step, and changes nothing of the
    training: on a part of the batch, every n-th step, a forward pass and a backward
    pass for each task. The look-ahead takes one more forward pass for each task, and
    one without a step, in one of T measurements. A step took 1.02 to 1.14 times that
    without, with `every=10` and 2 or 8 tasks (`python benchmarks/analysis.py`,
    docs/speed.md).

    Args:
        every: Integer, n. Defaults to 10.
        step_size: Float, η. Defaults to `None`, the learning rate of the optimizer at
            that step, as in the paper. In float32 a look-ahead that changes a loss by
            less than a millionth is rounding: then take a larger step, or the
            first-order form.
        look_ahead: Whether to look ahead; `False` leaves the first-order form alone.
            Defaults to `True`.
        fraction: Float in (0, 1], the part of a batch that is looked at. Defaults to
            `None`: what takes less than a tenth of the time of training with
            `every=10`, and more only if n is greater; at most all.
        look_ahead_every: Integer, m: one of m measurements looks ahead, the first
            among them, so that it is every $nm$-th step. Defaults to `None`: the
            number of tasks. Pairs of tasks with few labels, and epochs with few steps,
            may then have no look-ahead; 1 takes one in every measurement.

    After or while training it has the attributes `task_names`; `history`, an `Affinity`
    for each epoch; and `total`, that of the whole training.

    Raises:
        TypeError: If the model is no `MultiTaskModel`.
        ValueError: If tasks share no variables, the model is not built, or it trains on
            several replicas.

    Example:

    ```python
    x = keras.Input((4,))
    h = keras.layers.Dense(8, "relu")(x)
    model = keras_mtl.MultiTaskModel(x, {t: keras.layers.Dense(1)(h) for t in "abc"})
    model.compile("adam", loss="mse")
    data = np.random.default_rng(0).normal(size=(64, 4))
    labels = {"a": data[:, 0], "b": -data[:, 0], "c": data[:, 1]}
    affinity = keras_mtl.analysis.TaskAffinity(every=2)
    model.fit(data, labels, batch_size=16, verbose=0, callbacks=[affinity])
    print(affinity.total.look_ahead)
    print(affinity.groups(max_groups=2))
    ```

    Reference:
        Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning",
        NeurIPS 2021, https://arxiv.org/abs/2109.04617
    """

    def __init__(
        self,
        every: int = 10,
        step_size: float | None = None,
        look_ahead: bool = True,
        fraction: float | None = None,
        look_ahead_every: int | None = None,
    ) -> None:
        super().__init__(every, fraction)
        if step_size is not None:
            check_number("step_size", step_size, above=0)
        self.step_size = step_size
        self.look_ahead = look_ahead
        if look_ahead_every is not None:
            check_count("look_ahead_every", look_ahead_every)
        self.look_ahead_every = look_ahead_every

    @property
    def matrix(self) -> np.ndarray:
        """Affinities of the whole training: by look-ahead, if there was one."""
        total = self.total
        return total.look_ahead if self.look_ahead else total.first_order

    def groups(self, max_groups: int) -> list[list[str]]:
        """Returns the groups of tasks that are best trained together.

        Args:
            max_groups: Integer, the number of networks that can be afforded.

        Raises:
            ValueError: If some pair was never measured.
        """
        return group_tasks(self.matrix, max_groups, self.task_names)

    def to_frame(self) -> Any:
        """Returns a `pandas.DataFrame`, a row for each epoch and pair of tasks.

        Its columns are epoch, task (whose step it is), other (whose loss it is),
        look_ahead, first_order, steps and look_aheads.
        """
        rows = [
            {
                "epoch": epoch,
                "task": task,
                "other": other,
                "look_ahead": found.look_ahead[i, j],
                "first_order": found.first_order[i, j],
                "steps": int(found.steps[i, j]),
                "look_aheads": int(found.look_aheads[i, j]),
            }
            for epoch, found in zip(self.epochs, self.history, strict=True)
            for i, task in enumerate(self.task_names)
            for j, other in enumerate(self.task_names)
        ]
        values = ["look_ahead", "first_order", "steps", "look_aheads"]
        return data_frame(rows, ["epoch", "task", "other", *values])

    @property
    def _measurements_a_look_ahead(self) -> int:
        return self.look_ahead_every or len(self.task_names)

    def _passes(self) -> float:
        """Returns what a measurement takes on average, with its look-aheads."""
        ahead = (1 + len(self.task_names)) / self._measurements_a_look_ahead
        return super()._passes() + (ahead if self.look_ahead else 0)

    def _make_probe(self, fraction: float) -> GradientProbe:
        positions = [p for layer in self.layers for p in layer.positions]
        periods = [self.every]
        if self.look_ahead:
            periods.append(self.every * self._measurements_a_look_ahead)
        return _Probe(
            positions, len(self.task_names), self.step_size, periods, fraction
        )

    def _means(self, sums: list[np.ndarray]) -> Affinity:
        return _means(sums)


class _Probe(GradientProbe):
    """Adds up affinities."""

    def __init__(
        self,
        positions: Sequence[int],
        num_tasks: int,
        step_size: float | None,
        periods: Sequence[int],
        fraction: float,
    ) -> None:
        in_rows = len(periods) == 1
        super().__init__(periods, fraction, False, in_rows, "task_affinity")
        self.positions = positions
        self.step_size = step_size
        for name in ("look_ahead", "first_order", "pairs", "look_aheads"):
            self.add_sum((num_tasks, num_tasks), name)

    def measure(self, batch: ProbedBatch) -> list[Any]:
        step = batch.learning_rate if self.step_size is None else self.step_size
        step = ops.cast(step, "float32")
        losses = ops.cast(batch.losses, "float32")
        there = batch.present * ops.cast(losses != 0, "float32")
        pairs = batch.present[:, None] * there[None, :]
        scale = ops.where(there > 0, 1.0 / ops.where(there > 0, ops.abs(losses), 1), 0)
        first_order = (
            step * batch.gramians([self.positions])[0] * scale[None, :] * pairs
        )

        def look_ahead() -> list[Any]:
            # The first is without a step, by the same pass as the others: on its way
            # the forward pass of the gradients may draw masks in another order.
            found = batch.losses_with_each(self._after_steps(batch, step))
            found = ops.cast(found, "float32")
            return [(found[:1] - found[1:]) * scale[None, :] * pairs, pairs]

        def nothing() -> list[Any]:
            return [ops.zeros_like(pairs), ops.zeros_like(pairs)]

        if len(self.periods) > 1:
            changes, look_aheads = self.if_due(self.periods[1], look_ahead, nothing)
        else:
            changes, look_aheads = nothing()
        return [changes, first_order, pairs, look_aheads]

    def _after_steps(self, batch: ProbedBatch, step: Any) -> dict[int, Any]:
        """Returns the shared variables before and after a step for each task."""
        moved = {}
        for position in self.positions:
            value = batch.variables[position]
            changes = step * batch.rows[position].stacked() / batch.unit
            changes = ops.concatenate([ops.zeros_like(changes[:1]), changes])
            values = ops.cast(value, "float32")[None] - changes
            moved[position] = ops.cast(values, value.dtype)  # (1 + T, ...)
        return moved


def _means(sums: list[np.ndarray]) -> Affinity:
    changes, first_order, pairs, look_aheads = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return Affinity(changes / look_aheads, first_order / pairs, pairs, look_aheads)
