"""The base of all aggregators."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class Aggregator(keras.layers.Layer):
    """Turns the gradients of T tasks into one update.

    $$ d = \\mathcal{A}(J), \\qquad J = (g_1, \\dots, g_T)^\\top \\in R^{T \\times P} $$

    with the gradients $g_k$ of the task losses by P shared parameters. The
    optimiser is given d where it would be given the gradient of the summed loss.

    Most methods need no more of J than its Gramian $G = J J^\\top$: they derive from
    `GramianAggregator`. A method that needs single coordinates or their history
    overrides `combine` and, if it has state, `build_state`.

    Args:
        name: String, optional. Name of the layer.

    Call arguments:
        jacobian: Float tensor of shape `(T, P)`.
        losses: Float tensor of shape `(T,)`, the task losses. Some methods need
            them.
        present: Float tensor of shape `(T,)`, 1 for a task with labels in the
            batch and 0 for one without, whose row leaves the problem. Defaults to
            all ones.
        training: Boolean, whether state is updated. Defaults to `True`.

    Returns:
        Float tensor of shape `(P,)`, the update d.
    """

    is_gramian: bool = False
    """Whether the Gramian is all that it needs, so that `weights` gives the answer."""

    needs_losses: bool = False
    """Whether `losses` must be given."""

    keeps_gradients: bool = False
    """Whether its state has the shape of the gradients."""

    def __init__(self, *, name: str | None = None, **kwargs: Any) -> None:
        kwargs.pop("dtype", None)  # gradients come in float32 under every policy
        super().__init__(name=name, dtype="float32", **kwargs)
        self._task_names = None

    @property
    def task_names(self) -> list[str] | None:
        """Names of the T tasks, in the order of the rows; None if not known."""
        return None if self._task_names is None else list(self._task_names)

    def set_task_names(self, task_names: Sequence[str]) -> None:
        """Tells the aggregator its tasks; the model does so before `build`."""
        self._task_names = tuple(task_names)

    def build(self, jacobian_shape: tuple[int, ...]) -> None:
        """Creates the state for a Jacobian `(T, P)`."""
        if len(jacobian_shape) != 2 or None in jacobian_shape:
            raise ValueError(
                "`jacobian` must have the static shape (T, P): one row for each task. "
                f"Received: shape {tuple(jacobian_shape)}"
            )
        self.build_parts(jacobian_shape[0], [tuple(jacobian_shape[1:])])

    def build_parts(self, num_tasks: int, shapes: Sequence[tuple[int, ...]]) -> None:
        """Creates the state for gradients that come as one tensor a variable.

        Args:
            num_tasks: T.
            shapes: Shapes of the variables.
        """
        if num_tasks < 1:
            raise ValueError(
                f"`jacobian` must have one row or more. Received: {num_tasks} rows"
            )
        self.num_tasks = num_tasks
        self.build_state(shapes)
        self.built = True

    def build_state(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Creates the state, for variables of these shapes."""

    def add_state(
        self, name: str, shape: tuple[int, ...], initializer: Any = "zeros"
    ) -> keras.Variable:
        """Adds a float32 variable that is not trained."""
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=False,
            dtype="float32",
            aggregation="mean",  # what tf.distribute needs to assign in a step
        )

    @property
    def counter(self) -> tuple[keras.Variable, int] | None:
        """A variable that is 0 where new gradients are needed, and what it counts to.

        It is one more after each call that trains, and 0 in place of that number.
        None, unless it says otherwise: new gradients are always needed.
        """
        return None

    def weights_due(self) -> Any:
        """Returns whether the next call needs new gradients, a boolean scalar tensor.

        None, for always, unless there is a `counter`: a step may then leave out what
        the Gramian is made of, and pass one of zeros.
        """
        if self.counter is None:
            return None
        return ops.equal(ops.convert_to_tensor(self.counter[0]), 0.0)

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the update of each variable.

        Args:
            jacobians: By variable, the gradients of all tasks: float32 tensors
                `(T, ...)`.
            losses: Task losses `(T,)`, or None.
            present: Which tasks are there `(T,)`, or None for all.
            training: Whether state is updated.

        Returns:
            List of tensors of the shapes of the variables.
        """
        raise NotImplementedError(f"{type(self).__name__} must override `combine`.")

    def call(
        self,
        jacobian: Any,
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the update `(P,)`; see the class."""
        jacobian = ops.cast(jacobian, "float32")
        if losses is not None:
            losses = ops.cast(losses, "float32")
        present = self.as_present(present)
        self.check_losses(losses)
        (update,) = self.combine([jacobian], losses, present, training)
        return update

    def as_present(self, present: Any) -> Any:
        """Returns the mask of present tasks, all of them by default."""
        if present is None:
            return ops.ones((self.num_tasks,), "float32")
        present = ops.cast(ops.convert_to_tensor(present), "float32")
        if tuple(present.shape) != (self.num_tasks,):
            raise ValueError(
                f"`present` must have the shape ({self.num_tasks},). "
                f"Received: shape {tuple(present.shape)}"
            )
        return present

    def check_losses(self, losses: Any) -> None:
        """Refuses losses that are missing or of another shape."""
        if losses is None:
            if self.needs_losses:
                raise ValueError(
                    f"{type(self).__name__} needs `losses`, the task losses of shape "
                    f"({self.num_tasks},). Received: losses=None"
                )
        elif tuple(losses.shape) != (self.num_tasks,):
            raise ValueError(
                f"`losses` must have the shape ({self.num_tasks},). "
                f"Received: shape {tuple(losses.shape)}"
            )

    def compute_output_spec(self, jacobian, losses=None, present=None, training=True):
        """Shape and dtype of what `call` returns."""
        return keras.KerasTensor(jacobian.shape[1:], dtype="float32")
