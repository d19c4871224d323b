"""The base of aggregators that need no more than the Gramian."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.jacobian import (
    gramian_of,
    present_rows,
    safe_inverse,
    weighted_rows,
)


@dataclass
class GramianProblem:
    """What a method is given: the Gramian, and the same in units of unit gradients.

    With $g_k = s_k u_k$ and $|u_k| = 1$, a weight $w_k$ of a gradient is the weight
    $a_k = s_k w_k$ of its unit vector. Norms over twenty orders of magnitude fit
    into float32 as s; products of them would not.

    Attributes:
        gramian: G `(T, T)`, 0 for absent tasks.
        norms: s `(T,)`, 0 for absent tasks.
        correlation: $C_{ij} = u_i \\cdot u_j$ `(T, T)`; a task that is absent or
            whose gradient is zero has a row of the identity.
        present: 1 for tasks with labels, else 0, `(T,)`.
        active: 1 for present tasks whose gradient is not zero, else 0, `(T,)`.
        inverse_norms: 1 / s, and 0 for tasks that are not active, `(T,)`.
        losses: Task losses `(T,)`, or None.
        training: Whether state is updated.
    """

    gramian: Any
    norms: Any
    correlation: Any
    present: Any
    active: Any
    inverse_norms: Any
    losses: Any
    training: bool

    @property
    def num_tasks(self) -> int:
        """T, with the absent tasks."""
        return self.gramian.shape[0]

    @property
    def num_present(self) -> Any:
        """Number of present tasks, 1 if there is none."""
        return ops.maximum(ops.sum(self.present), 1.0)

    @property
    def mean_weights(self) -> Any:
        """Weights of the mean over present tasks `(T,)`."""
        return self.present / self.num_present

    def correlation_plus(self, regularization: float) -> Any:
        """Returns the correlation with a small multiple of the identity."""
        return self.correlation + regularization * ops.eye(self.num_tasks)


def make_problem(
    gramian: Any, losses: Any, present: Any, training: bool
) -> GramianProblem:
    """Splits a Gramian, 0 for absent tasks, into norms and correlations."""
    norms = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0.0))
    inverse = safe_inverse(norms)
    correlation = gramian * inverse[:, None] * inverse[None, :]
    correlation = ops.clip(correlation, -1.0, 1.0)
    eye = ops.eye(gramian.shape[0])
    return GramianProblem(
        gramian=gramian,
        norms=norms,
        correlation=ops.where(eye > 0, eye, correlation),
        present=present,
        active=ops.cast(norms > 0, "float32"),
        inverse_norms=inverse,
        losses=losses,
        training=training,
    )


class VariablesAndWeights(list):
    """The variables of a layer, and what calling it does."""

    def __init__(self, variables: Iterable[Any], function: Callable[..., Any]) -> None:
        super().__init__(variables)
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self._function(*args, **kwargs)


class GramianAggregator(Aggregator):
    """An aggregator whose update is a weighted sum of the gradients.

    $$ d = J^\\top w, \\qquad w = w(G), \\qquad G = J J^\\top \\in R^{T \\times T} $$

    A method overrides `solve`, and that is all:

    ```python
    @keras.saving.register_keras_serializable("my_package")
    class UnitGradients(keras_mtl.aggregation.GramianAggregator):
        def solve(self, problem):
            return problem.inverse_norms

    UnitGradients().weights(np.diag([4.0, 100.0]))  # [0.5, 0.1]
    ```

    The training step of a model sums the Gramian variable by variable and never
    holds a matrix `(T, P)`.
    """

    is_gramian = True

    def build_parts(
        self, num_tasks: int, shapes: Sequence[tuple[int, ...]] = ()
    ) -> None:
        """Creates the state, which does not depend on the variables."""
        super().build_parts(num_tasks, ())

    @property
    def weights(self) -> "VariablesAndWeights":
        """The weights of the tasks' gradients: call it as `task_weights`.

        As it stands it is, as of every Keras layer, the list of its variables.
        """
        return VariablesAndWeights(super().weights, self.task_weights)

    def task_weights(
        self,
        gramian: Any,
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the weights of the tasks' gradients.

        Args:
            gramian: Products of the tasks' gradients, symmetric `(T, T)`.
            losses: Task losses `(T,)`; some methods need them.
            present: 1 for tasks with labels in the batch, else 0, `(T,)`. Defaults
                to all ones. An absent task has a weight of 0, and the others the
                weights that they had without it.
            training: Whether state is updated.

        Returns:
            Float tensor of shape `(T,)`.

        Raises:
            ValueError: A shape is wrong, or `losses` is needed and missing.
        """
        gramian = ops.cast(ops.convert_to_tensor(gramian), "float32")
        shape = tuple(gramian.shape)
        if len(shape) != 2 or shape[0] != shape[1] or None in shape:
            raise ValueError(
                "`gramian` must be square, one row and column for each task. "
                f"Received: shape {shape}"
            )
        if not self.built:
            self.build_parts(shape[0])
        if shape[0] != self.num_tasks:
            raise ValueError(
                f"`gramian` must have the shape ({self.num_tasks}, {self.num_tasks}), "
                f"as when the aggregator was built. Received: shape {shape}"
            )
        present = self.as_present(present)
        if losses is not None:
            losses = ops.cast(ops.convert_to_tensor(losses), "float32")
        self.check_losses(losses)
        pairs = ops.logical_and(present[:, None] > 0, present[None, :] > 0)
        gramian = ops.where(pairs, gramian, 0.0)
        # A gradient that is not finite shows in the weights, and in them alone: no
        # solver sees it, and no state keeps it.
        finite = ops.all(ops.isfinite(gramian))
        gramian = ops.where(finite, gramian, ops.eye(shape[0]))
        with self.state_kept_unless(finite, training):
            weights = self.solve(make_problem(gramian, losses, present, training))
        weights = ops.where(finite, weights, np.float32("nan"))
        return ops.where(present > 0, weights, 0.0)

    @contextlib.contextmanager
    def state_kept_unless(self, condition: Any, training: bool) -> Iterator[None]:
        """Takes back what is done to the state inside, unless a condition holds."""
        states = [v for v in self.non_trainable_variables if v.dtype == "float32"]
        before = [ops.copy(ops.convert_to_tensor(v)) for v in states]
        yield
        if training:
            for variable, value in zip(states, before, strict=True):
                now = ops.convert_to_tensor(variable)
                variable.assign(ops.where(condition, now, value))

    def solve(self, problem: GramianProblem) -> Any:
        """Returns the weights `(T,)`; those of absent tasks are ignored."""
        raise NotImplementedError(f"{type(self).__name__} must override `solve`.")

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the weighted sums of the gradients."""
        jacobians = present_rows(jacobians, present)
        weights = self.task_weights(gramian_of(jacobians), losses, present, training)
        return weighted_rows(jacobians, weights)
