"""Auxiliary gradients as long as the main one, variable by variable."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.jacobian import along_rows, present_rows
from keras_mtl.argument_checks import check_number


@keras.saving.register_keras_serializable("keras_mtl")
class MetaBalance(Aggregator):
    """The main task's gradient and auxiliary ones scaled towards its length.

    For each variable, with running means $m_k$ of the gradients' lengths,

    $$ d = \\sum_k \\Bigl( r \\frac{m_{main}}{m_k} + 1 - r \\Bigr) g_k $$

    The mean of a task starts at its first length. In a batch without the main task
    the others are scaled by the mean that it has.

    Args:
        main_task: Name of the main task, or its row. Defaults to `0`.
        relaxation: Float in [0, 1]: r, 1 for equal lengths and 0 for the plain sum.
            Defaults to `0.7`.
        beta: Float in [0, 1), the share of the old mean. Defaults to `0.9`.

    Raises:
        ValueError: If an argument is out of range, or if there is no such task.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.MetaBalance(relaxation=1.0)
    aggregator(np.array([[2.0, 0.0], [0.0, 8.0]]))  # [2.0, 2.0]
    ```

    Reference:
        He et al., "MetaBalance: Improving Multi-Task Recommendations via Adapting
        Gradient Magnitudes of Auxiliary Tasks", WWW 2022,
        https://arxiv.org/abs/2203.06801
    """

    def __init__(
        self,
        main_task: str | int = 0,
        relaxation: float = 0.7,
        beta: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(main_task, bool) or not isinstance(main_task, str | int):
            raise ValueError(
                "`main_task` must be the name of a task or its row. "
                f"Received: main_task={main_task!r}"
            )
        self.main_task = main_task
        self.relaxation = check_number("relaxation", relaxation, at_least=0, at_most=1)
        self.beta = check_number("beta", beta, at_least=0)
        if self.beta >= 1:
            raise ValueError(f"`beta` must be less than 1. Received: beta={beta!r}")

    def build_state(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Creates the means of the lengths, one a task and variable."""
        names = self.task_names or []
        self._main = self.main_task
        if isinstance(self.main_task, str):
            self._main = names.index(self.main_task) if self.main_task in names else -1
        if not 0 <= self._main < self.num_tasks:
            known = f", one of {names}" if names else ""
            raise ValueError(
                f"`main_task` must be a task{known} or a row from 0 to "
                f"{self.num_tasks - 1}. Received: main_task={self.main_task!r}"
            )
        self.lengths = self.add_state("lengths", (len(shapes), self.num_tasks))

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the sums of the scaled gradients."""
        jacobians = present_rows(jacobians, present)
        lengths = ops.stack(
            [ops.norm(ops.reshape(r, (self.num_tasks, -1)), axis=1) for r in jacobians]
        )
        old = ops.copy(ops.convert_to_tensor(self.lengths))
        means = ops.where(
            old > 0, self.beta * old + (1.0 - self.beta) * lengths, lengths
        )
        means = ops.where(present[None] > 0, means, old)
        main = means[:, self._main, None]
        usable = ops.logical_and(means > 0, main > 0)
        ratio = ops.where(usable, main / ops.where(means > 0, means, 1.0), 1.0)
        scales = self.relaxation * ratio + 1.0 - self.relaxation
        if training:
            finite = ops.all(ops.isfinite(means))
            self.lengths.assign(ops.where(finite, means, old))
        return [
            ops.sum(along_rows(scale, rows) * rows, axis=0)
            for scale, rows in zip(ops.unstack(scales), jacobians, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "main_task": self.main_task,
            "relaxation": self.relaxation,
            "beta": self.beta,
        }
