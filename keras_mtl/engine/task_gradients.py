"""From the gradients of the tasks to those that the optimiser is given."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.jacobian import gramian_of
from keras_mtl.engine.gradient_plan import GradientPlan
from keras_mtl.engine.stages import Backward, Key, add_to
from keras_mtl.engine.task_rows import Rows
from keras_mtl.engine.trunk_walk import rows_by_shared, walk_down


@dataclass(frozen=True)
class AggregationOptions:
    """Where and how gradients are aggregated.

    Attributes:
        at_representation: Whether by the tensors where tasks part, in place of by the
            shared variables.
        chunk_size: Number of tasks whose gradients are held at once, or None for all.
        gramian_fraction: Part of the batch that the Gramian is formed on.
    """

    at_representation: bool = False
    chunk_size: int | None = None
    gramian_fraction: float = 1.0


@dataclass
class AggregatedStep:
    """One step of an aggregator, on the gradients of one batch.

    Attributes:
        plan: The sorted variables.
        options: Where and how.
        aggregator: The aggregator.
        backward: The differentiated forward pass. Its gradients are times `unit`, and
            with replicas are parts that sum to those of the global batch.
        variables: Values of the trainable variables.
        losses: The unweighted task losses `(T,)`.
        present: 1 for tasks with labels, else 0, `(T,)`.
        unit: The factor of the loss scaling.
        replicas: Number of replicas that train in step.
        sum_over_replicas: Sums a tensor, or each of a list, over the replicas.
        after: Returns its first argument, computed after its second.
        part: Returns the differentiated forward pass of a part of the batch.
        known_due: Whether it is known already that weights are due, so that no branch
            of the graph is to be left out.
    """

    plan: GradientPlan
    options: AggregationOptions
    aggregator: Aggregator
    backward: Backward
    variables: Sequence[Any]
    losses: Any
    present: Any
    unit: Any
    replicas: int = 1
    sum_over_replicas: Callable[[Any], Any] = lambda tensor: tensor
    after: Callable[[Any, Any], Any] = lambda tensor, previous: tensor
    part: Callable[[], Backward] | None = None
    known_due: bool = False
    gramian: Any = None
    weights: Any = None
    due: Any = None

    @property
    def num_tasks(self) -> int:
        """T."""
        return len(self.backward.by_key)

    def gradients(self, extras: Mapping[int, Any]) -> list[Any]:
        """Returns the gradients by all trainable variables, None where there is none.

        It leaves in `gramian` the Gramian of the task gradients, in `weights` those of
        the tasks, None if the aggregator has none, and in `due` whether they are new,
        None if always.

        Args:
            extras: Gradients of `add_loss` and regularisers, added untouched.
        """
        self.due = self.aggregator.weights_due()
        found: dict[int, Any] = dict(self.backward.gradients)
        if self.options.at_representation:
            add_to(found, self._at_representation())
        elif self._weights_come_first():
            add_to(found, self._private_gradients())
            self.gramian = self._gramian_without_rows()
            self._solve()
            add_to(found, self._gradients_of_weighted_sum())
        else:
            add_to(found, self._at_parameters())
        add_to(found, extras)
        return [found.get(position) for position in range(len(self.variables))]

    def _weights_come_first(self) -> bool:
        """Whether the weights are found without the rows of the Jacobian at hand."""
        return self.aggregator.is_gramian and (
            self._in_chunks() or self.part is not None or self._can_skip()
        )

    def _in_chunks(self) -> bool:
        size = self.options.chunk_size
        return size is not None and size < self.num_tasks

    def _can_skip(self) -> bool:
        # Replicas cannot sum in one branch of a condition alone.
        return self.due is not None and self.replicas == 1 and not self.known_due

    def _solve(self) -> None:
        self.weights = self.aggregator.task_weights(
            self.gramian, self.losses, self.present, True
        )

    # At the shared variables

    def _at_parameters(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        rows: dict[int, list[Any]] = {
            p: [None] * self.num_tasks for p in self.plan.shared
        }
        for task in range(self.num_tasks):
            shared = self.plan.shared_by(task)
            gradients = self._pull_task(task, shared | self.plan.private_to(task))
            for position, gradient in gradients.items():
                if position in shared:
                    rows[position][task] = gradient
                else:
                    add_to(found, {position: gradient})
        shapes = {p: tuple(self.variables[p].shape) for p in rows}
        jacobians = self._over_replicas(
            {p: Rows(by_task, shapes[p]) for p, by_task in rows.items()}
        )
        add_to(found, self._combined(jacobians))
        return {
            p: ops.cast(g, self.variables[p].dtype) if p in rows else g
            for p, g in found.items()
        }

    def _over_replicas(self, rows: dict[int, Rows]) -> dict[int, Rows]:
        """Returns the gradients of the global batch by the shared variables."""
        if self.replicas == 1:
            return rows
        # All in one call: sums that replicas start in another order would wait for
        # each other.
        stacked = self.sum_over_replicas([j.stacked() for j in rows.values()])
        return {
            p: Rows(ops.unstack(j, self.num_tasks), tuple(self.variables[p].shape))
            for p, j in zip(rows, stacked, strict=True)
        }

    def _combined(self, jacobians: Mapping[Any, Rows]) -> dict[Any, Any]:
        """Returns the updates, in parts that sum to them over the replicas."""
        if self.aggregator.is_gramian:
            self.gramian = self._scaled(sum(j.gramian() for j in jacobians.values()))
            self._solve()
            weights = self.weights / self.replicas
            return {key: j.weighted_sum(weights) for key, j in jacobians.items()}
        stacked = [j.stacked() / self.unit for j in jacobians.values()]
        self.gramian = gramian_of(stacked)
        updates = self.aggregator.combine(stacked, self.losses, self.present, True)
        scale = self.unit / self.replicas
        return {
            key: update * scale for key, update in zip(jacobians, updates, strict=True)
        }

    def _scaled(self, gramian: Any) -> Any:
        return gramian / self.unit / self.unit

    def _private_gradients(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for task in range(self.num_tasks):
            add_to(found, self._pull_task(task, self.plan.private_to(task)))
        return found

    def _gramian_without_rows(self) -> Any:
        backward = self.backward if self.part is None else self.part()

        def compute():
            if self._in_chunks():
                return self._scaled(self._gramian_in_chunks(backward))
            shapes = {p: tuple(self.variables[p].shape) for p in self.plan.shared}
            jacobians = self._over_replicas(rows_by_shared(self.plan, backward, shapes))
            return self._scaled(sum(j.gramian() for j in jacobians.values()))

        if not self._can_skip():
            return compute()
        size = self.num_tasks
        return ops.cond(self.due, compute, lambda: ops.zeros((size, size), "float32"))

    def _gramian_in_chunks(self, backward: Backward) -> Any:
        """Returns the Gramian with the gradients of `chunk_size` tasks at hand.

        Those of all but one are held, while those of every other task come by and are
        dropped again: the price is that they are computed several times.
        """
        size = self.num_tasks
        held = max(self.options.chunk_size - 1, 1)
        blocks, previous = [], None
        for start in range(0, size, held):
            block = range(start, min(start + held, size))
            rows = [self._row(task, backward, previous) for task in block]
            columns = []
            for task in range(start, size):
                row = rows[task - start] if task in block else None
                if row is None:
                    row = self._row(task, backward, previous)
                previous = ops.stack([_product(row, other) for other in rows])
                columns.append(previous)
            upper = ops.stack(columns, axis=1)
            blocks.append(ops.pad(upper, ((0, 0), (start, 0))))
        upper = ops.concatenate(blocks, axis=0)
        index = np.arange(size) // held
        below = ops.convert_to_tensor(
            (index[:, None] > index[None, :]).astype("float32")
        )
        return upper + below * ops.transpose(upper)

    def _row(self, task: int, backward: Backward, previous: Any) -> dict[int, Any]:
        cotangents = backward.by_key[task]
        if previous is not None:
            cotangents = {k: self.after(c, previous) for k, c in cotangents.items()}
        found, _ = walk_down(self.plan, backward, cotangents, self.plan.shared_by(task))
        there = {p: ops.cast(g, "float32") for p, g in found.items() if g is not None}
        if self.replicas == 1:
            return there
        summed = self.sum_over_replicas(list(there.values()))
        return dict(zip(there, summed, strict=True))

    def _gradients_of_weighted_sum(self) -> dict[int, Any]:
        """Returns the weighted sum of the gradients, by one pass."""
        weights = ops.unstack(self.weights, self.num_tasks)
        total: dict[Key, Any] = {}
        for weight, cotangents in zip(weights, self.backward.by_key, strict=True):
            for key, c in cotangents.items():
                add_to(total, {key: ops.cast(weight, c.dtype) * c})
        found, _ = walk_down(self.plan, self.backward, total, set(self.plan.shared))
        return found

    # At the tensors where tasks part

    def _at_representation(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        rows = self._rows_by_key(self.backward, found)
        if self.aggregator.is_gramian:
            self.gramian = self._gramian_at_representation(rows)
            self._solve()
            updates = {key: j.weighted_sum(self.weights) for key, j in rows.items()}
        else:
            if self.replicas > 1:
                raise ValueError(
                    f"{type(self.aggregator).__name__} needs the gradients themselves, "
                    "of which each replica has those of its own rows: aggregate at "
                    f"'parameters'. Received: {self.replicas} replicas"
                )
            updates = self._combined(rows)
        cotangents = {key: j.like(updates[key]) for key, j in rows.items()}
        shared, _ = walk_down(
            self.plan,
            self.backward,
            cotangents,
            set(self.plan.shared),
            stop=self.backward.stages.parting,
        )
        add_to(found, shared)
        return found

    def _gramian_at_representation(self, rows: Mapping[Key, Rows]) -> Any:
        if self.part is not None:
            rows = self._rows_by_key(self.part(), {})
        gramian = self._scaled(sum(j.gramian() for j in rows.values()))
        return self.sum_over_replicas(gramian)

    def _rows_by_key(
        self, backward: Backward, found: dict[int, Any]
    ) -> dict[Key, Rows]:
        """Returns the task gradients by the tensors where tasks part.

        Args:
            backward: The differentiated forward pass.
            found: Is given the gradients of private variables that come on the way.
        """
        parting = backward.stages.parting
        by_key: dict[Key, list[Any]] = {key: [None] * self.num_tasks for key in parting}
        for task, cotangents in enumerate(backward.by_key):
            private, there = walk_down(
                self.plan, backward, cotangents, self.plan.private_to(task), parting
            )
            add_to(found, private)
            for key, cotangent in there.items():
                by_key[key][task] = cotangent
        return {
            key: Rows(by_task)
            for key, by_task in by_key.items()
            if any(row is not None for row in by_task)
        }

    def _pull_task(self, task: int, positions: Collection[int]) -> dict[int, Any]:
        by_key = self.backward.by_key[task]
        found, _ = walk_down(self.plan, self.backward, by_key, positions)
        return {p: gradient for p, gradient in found.items() if gradient is not None}


def _product(row: Mapping[int, Any], other: Mapping[int, Any]) -> Any:
    total = ops.zeros((), "float32")
    for position in row.keys() & other.keys():
        total = total + ops.sum(row[position] * other[position])
    return total
