"""Robust multi-task learning with excess risks."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.jacobian import present_rows, weighted_rows
from keras_mtl.argument_checks import check_count, check_number


@keras.saving.register_keras_serializable("keras_mtl")
class ExcessMTL(Aggregator):
    """Weights that grow with how far a task is from its own best.

    With the running sums $S_k \\leftarrow S_k + g_k \\odot g_k$, the excess risk of a
    task is estimated by what a step of Adagrad would gain,

    $$ \\hat e_k = \\sum_p \\frac{g_{kp}^2}{\\sqrt{S_{kp} + \\epsilon}}, \\qquad
       w_k \\propto w_k \\exp\\bigl( \\eta\\, \\hat e_k / \\hat e_k(0) \\bigr),
       \\qquad d = \\sum_k w_k g_k $$

    relative to its first value. A task with noisy labels has a high loss but little
    excess risk, and is not favoured. It holds T gradients as state; absent tasks keep
    theirs and their weight.

    Args:
        learning_rate: Float, greater than 0: eta. Defaults to `0.01`.
        warmup_steps: Integer, not negative. Steps with equal weights, after which the
            first excess is taken. Defaults to `0`.
        epsilon: Float, greater than 0. Defaults to `1e-7`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    aggregator = keras_mtl.aggregation.ExcessMTL()
    aggregator(np.array([[2.0, 0.0], [0.0, 2.0]]))  # [1.0, 1.0]
    ```

    Reference:
        He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024,
        https://arxiv.org/abs/2402.02009
    """

    keeps_gradients = True

    def __init__(
        self,
        learning_rate: float = 0.01,
        warmup_steps: int = 0,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.learning_rate = check_number("learning_rate", learning_rate, above=0)
        self.warmup_steps = check_count("warmup_steps", warmup_steps, at_least=0)
        self.epsilon = check_number("epsilon", epsilon, above=0)

    def build_state(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Creates the sums of squares, first excesses, weights and the counter."""
        tasks = (self.num_tasks,)
        self.squares = [
            self.add_state(f"squares_{index}", (self.num_tasks, *shape))
            for index, shape in enumerate(shapes)
        ]
        self.first_excess = self.add_state("first_excess", tasks)
        self.log_weights = self.add_state("log_weights", tasks)
        self.step = self.add_state("step", ())

    def combine(
        self,
        jacobians: Sequence[Any],
        losses: Any = None,
        present: Any = None,
        training: bool = True,
    ) -> list[Any]:
        """Returns the weighted sums."""
        jacobians = present_rows(jacobians, present)
        excess, squares = 0.0, []
        for rows, variable in zip(jacobians, self.squares, strict=True):
            # Twice the quotient in place of a square: tiny gradients must not vanish.
            total = variable + ops.square(rows)
            root = ops.sqrt(total + self.epsilon)
            gain = ops.abs(rows) * (ops.abs(rows) / root)
            excess = excess + ops.sum(ops.reshape(gain, (self.num_tasks, -1)), axis=1)
            squares.append(total)
        first = ops.copy(ops.convert_to_tensor(self.first_excess))
        warm = ops.cast(self.step >= self.warmup_steps, "float32")
        counted = warm * present * ops.cast(excess > 0, "float32")
        first = ops.where(ops.logical_and(counted > 0, first == 0), excess, first)
        ratio = ops.where(counted > 0, excess / ops.where(first > 0, first, 1.0), 0.0)
        old = ops.copy(ops.convert_to_tensor(self.log_weights))
        logs = old + self.learning_rate * ratio
        logs = logs - ops.max(logs)
        here = present > 0
        shifted = ops.where(here, logs, -1e30)
        weights = ops.where(here, ops.softmax(shifted), 0.0)
        if training:
            finite = ops.all(ops.isfinite(excess))
            for variable, total in zip(self.squares, squares, strict=True):
                variable.assign(ops.where(finite, total, variable.value))
            self.first_excess.assign(ops.where(finite, first, self.first_excess.value))
            self.log_weights.assign(ops.where(finite, logs, old))
            self.step.assign(ops.where(finite, self.step + 1.0, self.step.value))
        return weighted_rows(jacobians, weights)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "epsilon": self.epsilon,
        }
