"""Measures the gradients of the tasks in some of the training steps."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.engine.gradient_plan import GradientPlan
from keras_mtl.engine.stages import Backward
from keras_mtl.engine.task_rows import Rows
from keras_mtl.engine.trunk_walk import rows_by_shared


@dataclass
class ProbedBatch:
    """A batch, or a part of one, at the parameters that a step starts from.

    Attributes:
        plan: The sorted variables.
        backward: The differentiated forward pass. Its gradients are times `unit`.
        variables: Values of the trainable variables.
        losses: The unweighted task losses `(T,)`.
        present: 1 for tasks with labels, else 0, `(T,)`.
        unit: The factor of the loss scaling.
        learning_rate: That of the optimizer.
        losses_with_each: Called with S values of variables by position, `(S, ...)`,
            returns the unweighted task losses `(S, T)` of the same rows, with the
            same dropout masks.
    """

    plan: GradientPlan
    backward: Backward
    variables: Sequence[Any]
    losses: Any
    present: Any
    unit: Any
    learning_rate: Any
    losses_with_each: Callable[[dict[int, Any]], Any]

    @functools.cached_property
    def rows(self) -> dict[int, Rows]:
        """The task gradients by the shared variables, by position, times `unit`."""
        shapes = {p: tuple(self.variables[p].shape) for p in self.plan.shared}
        return rows_by_shared(self.plan, self.backward, shapes)

    def gramians(self, layers: Sequence[Sequence[int]]) -> Any:
        """Returns the products `(L, T, T)` of the gradients by each of L layers.

        Args:
            layers: For each, the positions of its variables, all of them shared.
        """
        if any(rows.in_factors for rows in self.rows.values()):
            found = [sum(self.rows[p].gramian() for p in layer) for layer in layers]
        else:
            # Few operations: on PyTorch each takes time, whatever its size.
            tasks = range(len(self.backward.by_key))
            order = [p for layer in layers for p in layer]
            flat = [
                ops.concatenate([self.rows[p].flat(task) for p in order])
                for task in tasks
            ]
            sizes = [sum(self.rows[p].size for p in layer) for layer in layers]
            matrix, ends = ops.stack(flat), np.cumsum([0, *sizes]).tolist()
            parts = [matrix[:, i:j] for i, j in itertools.pairwise(ends)]
            found = [ops.matmul(part, ops.transpose(part)) for part in parts]
        return ops.stack(found) / self.unit / self.unit


class GradientProbe(keras.metrics.Metric):
    """What is added up over every n-th training step, inside the step.

    A subclass has variables of its own, the sums, and says in `measure` what is added
    to them. Nothing is computed in the other steps. The training is the same as
    without: what the forward pass of a probe does to states is dropped.

    Where Python runs each step, or chooses the compiled step that is run, it counts the
    steps, and says in `due` what is measured; else a condition of the graph says it.

    Args:
        periods: Integers: n, and multiples of it, after which `measure` does more. The
            first step is due for all of them.
        fraction: Float in (0, 1], the part of the batch that is looked at.
        weighted: Whether gradients are those of the weighted losses, or of the losses.
        in_rows: Whether `measure` asks for Gramians alone, which may be cheaper.
        name: String.

    Attributes:
        due: The periods that the step is due for, `None` if the graph says so.
        is_used: Whether a training step has asked for a measurement.
    """

    def __init__(
        self,
        periods: Sequence[int],
        fraction: float,
        weighted: bool,
        in_rows: bool,
        name: str,
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self.periods = periods
        self.fraction = fraction
        self.weighted = weighted
        self.in_rows = in_rows
        self.result_names: list[str] = []
        self.sums: list[keras.Variable] = []
        self.steps = self.add_variable((), "zeros", dtype="int32", name="steps")
        self.due: tuple[int, ...] | None = None
        self.is_used = False
        self._steps_of_python = 0

    def add_sum(self, shape: Sequence[int], name: str) -> keras.Variable:
        """Adds a variable that measurements are added to."""
        variable = self.add_variable(tuple(shape), "zeros", name=name)
        self.sums.append(variable)
        return variable

    def measure(self, batch: ProbedBatch) -> list[Any]:
        """Returns what is added to each of the sums, in their order."""
        raise NotImplementedError

    def update_state(self, probed_batch: Callable[[], ProbedBatch]) -> None:
        """Measures a step if it is one of those.

        Args:
            probed_batch: Returns the batch. Called if it is needed.
        """

        def nothing() -> list[Any]:
            return [ops.zeros(tuple(v.shape), "float32") for v in self.sums]

        self.is_used = True
        if self.due == ():
            return
        self._add(
            self.if_due(
                self.periods[0], lambda: self._measured(probed_batch()), nothing
            )
        )
        if self.due is None:
            self.steps.assign_add(1)

    def count_step(self) -> tuple[int, ...]:
        """Counts a step that Python runs, and returns the periods it is due for."""
        step = self._steps_of_python
        self._steps_of_python += 1
        return tuple(period for period in self.periods if step % period == 0)

    def if_due(
        self, period: int, do: Callable[[], Any], otherwise: Callable[[], Any]
    ) -> Any:
        """Returns the result of one function in steps that are due, else of another.

        Args:
            period: One of the periods.
            do: Called in the steps that are due for it.
            otherwise: Called in the others; its results are of the same shapes.
        """
        if self.due is not None:
            return do() if period in self.due else otherwise()
        steps = ops.convert_to_tensor(self.steps)
        return ops.cond(ops.equal(ops.mod(steps, period), 0), do, otherwise)

    def _measured(self, batch: ProbedBatch) -> list[Any]:
        values = [ops.cast(value, "float32") for value in self.measure(batch)]
        # What overflows with loss scaling is no measurement: the optimizer leaves out
        # such a step, too. Without, it is for the user to see.
        finite = ops.all(ops.stack([ops.all(ops.isfinite(value)) for value in values]))
        unscaled = ops.equal(ops.cast(batch.unit, "float32"), 1.0)
        counts = ops.logical_or(finite, unscaled)
        return [ops.where(counts, value, 0.0) for value in values]

    def _add(self, values: Sequence[Any]) -> None:
        for variable, value in zip(self.sums, values, strict=True):
            variable.assign_add(value)

    def result(self) -> dict[str, Any]:
        """Returns nothing: the logs have no room for matrices."""
        return {}

    def reset_state(self) -> None:
        """Keeps the sums: an evaluation in between is none of their business."""

    def clear(self) -> None:
        """Sets the sums to zero; steps are counted on."""
        for variable in self.sums:
            variable.assign(ops.zeros(tuple(variable.shape), "float32"))
