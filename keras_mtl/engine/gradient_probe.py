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

    Args:
        every: Integer, n. The first step is measured.
        fraction: Float in (0, 1], the part of the batch that is looked at.
        weighted: Whether gradients are those of the weighted losses, or of the losses.
        in_rows: Whether `measure` asks for Gramians alone, which may be cheaper.
        name: String.
    """

    def __init__(
        self,
        every: int,
        fraction: float,
        weighted: bool,
        in_rows: bool,
        name: str,
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self.every = every
        self.fraction = fraction
        self.weighted = weighted
        self.in_rows = in_rows
        self.result_names: list[str] = []
        self.sums: list[keras.Variable] = []
        self.steps = self.add_variable((), "zeros", dtype="int32", name="steps")
        self._steps_of_python = 0
        self._in_python = False

    def add_sum(self, shape: Sequence[int], name: str) -> keras.Variable:
        """Adds a variable that measurements are added to."""
        variable = self.add_variable(tuple(shape), "zeros", name=name)
        self.sums.append(variable)
        return variable

    def measure(self, batch: ProbedBatch) -> list[Any]:
        """Returns what is added to each of the sums, in their order."""
        raise NotImplementedError

    def update_state(self, probed_batch: Callable[[], ProbedBatch]) -> None:
        """Counts a step of a graph, and measures it if it is one of those.

        Args:
            probed_batch: Returns the batch. Called if it is needed.
        """

        def nothing() -> list[Any]:
            return [ops.zeros(tuple(v.shape), "float32") for v in self.sums]

        self._in_python = False
        self._add(
            self.if_due(self.every, lambda: self._measured(probed_batch()), nothing)
        )
        self.steps.assign_add(1)

    def update_eagerly(self, probed_batch: Callable[[], ProbedBatch]) -> None:
        """As `update_state`, of a step that Python runs, and counts.

        Args:
            probed_batch: Returns the batch. Called if it is needed.
        """
        self._in_python = True
        measured = self.if_due(
            self.every, lambda: self._measured(probed_batch()), lambda: None
        )
        if measured is not None:
            self._add(measured)
        self._steps_of_python += 1

    def if_due(
        self, every: int, do: Callable[[], Any], otherwise: Callable[[], Any]
    ) -> Any:
        """Returns the result of one function in every n-th step, else of another.

        Args:
            every: Integer, n. The first step is one of them.
            do: Called in those steps.
            otherwise: Called in the others; in a graph, its results are of the same
                shapes.
        """
        if self._in_python:
            return do() if self._steps_of_python % every == 0 else otherwise()
        steps = ops.convert_to_tensor(self.steps)
        return ops.cond(ops.equal(ops.mod(steps, every), 0), do, otherwise)

    @property
    def counted(self) -> bool:
        """Whether there was a step."""
        return self._steps_of_python > 0 or int(ops.convert_to_numpy(self.steps)) > 0

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
