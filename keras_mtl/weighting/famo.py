"""All log losses come down at one rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_number
from keras_mtl.weighting.log_losses import log_losses
from keras_mtl.weighting.masked_adam import MaskedAdam
from keras_mtl.weighting.per_task_weighting import PerTaskWeighting, constant, values_of
from keras_mtl.weighting.present_tasks import softmax_over_present


@keras.saving.register_keras_serializable("keras_mtl")
class FAMO(PerTaskWeighting):
    """Fast adaptive multitask optimisation: all log losses come down at one rate.

    With logits xi, lower bounds b, `D = L - b + epsilon` and the softmax
    `z = softmax(xi)` over the tasks that are present, the step is one on

    $$ \\frac1c \\sum_k z_k \\log D_k, \\quad c = \\sum_k \\frac{z_k}{D_k}
       \\qquad \\text{that is} \\qquad
       w_k = \\frac{z_k / D_k}{\\sum_j z_j / D_j} $$

    After it, with the decrease `delta = log D - log D_new`, Adam takes xi down

    $$ \\nabla_\\xi = (\\mathrm{diag}(z) - z z^\\top) \\, \\delta + \\gamma \\xi $$

    so that a task that fell behind gets more weight. The weights of the present
    tasks sum to 1, and the weighted losses are returned: their gradient is that
    of the objective, their value a mean of the losses.

    Losses should be above their lower bound: one at it or below has weight 0. A
    loss just above its bound takes over the update. An absent task keeps its xi
    and its moments. Batches of one task teach nothing: give it several per batch.

    Args:
        learning_rate: Float, step size of Adam on xi. Defaults to `0.025`.
        gamma: Float, decay of xi. The paper has `1e-3` (NYUv2, QM9, CelebA),
            `1e-2` (Cityscapes) and 0 (its toy). Defaults to `1e-3`.
        losses_after: `"same_batch"`: the losses of the same batch after the
            step, as in the paper, for a forward pass more; or `"next_batch"`:
            those of the next batch before its step, noisier and free of cost
            (a task that is absent there is compared when it is next present).
            Defaults to `"same_batch"`.
        lower_bounds: The b of each task: a float for all, a list or a dict by
            task name (0 for a task left out). Defaults to `None`: 0 for each.
        epsilon: Float, added to a loss above its bound. Defaults to `1e-8`.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `learning_rate` or `epsilon` is not positive, if `gamma`
            is negative, if `losses_after` is unknown, if there are not as many
            bounds as tasks, or if a dict names a task that there is not.

    Example:

    ```python
    weighting = keras_mtl.weighting.FAMO()
    before = np.array([0.5, 20.0], "float32")
    _, weights = weighting(before, training=True, return_weights=True)
    weights  # [0.976, 0.024]
    after = np.array([0.4, 20.0], "float32")
    weighting.update_after_step(after, np.ones(2, "float32"))
    weighting.xi  # [-0.025, 0.025]: the second task fell behind
    ```

    Reference:
        Liu, Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization",
        NeurIPS 2023, https://arxiv.org/abs/2306.03792
    """

    def __init__(
        self,
        learning_rate: float = 0.025,
        gamma: float = 1e-3,
        losses_after: str = "same_batch",
        lower_bounds: float | Sequence[float] | Mapping[str, float] | None = None,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__({"lower_bounds": lower_bounds}, **kwargs)
        for bound in values_of(lower_bounds):
            check_number("lower_bounds", bound)
        self.learning_rate = check_number("learning_rate", learning_rate, above=0)
        self.gamma = check_number("gamma", gamma, at_least=0)
        self.losses_after = check_choice(
            "losses_after", losses_after, ("same_batch", "next_batch")
        )
        self.epsilon = check_number("epsilon", epsilon, above=0)
        self.needs_losses_after_step = losses_after == "same_batch"

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates xi, its optimiser and the log losses to compare with."""
        super().build(losses_shape)
        self._lower_bounds = constant(self.per_task("lower_bounds", 0.0))
        self.xi = self.add_state("xi")
        self.log_losses = self.add_state("log_losses")
        self.seen = self.add_state("seen")
        self.adam = MaskedAdam(self, self.learning_rate)

    def _excess(self, losses: Any) -> Any:
        """Returns by how much each loss is above its bound."""
        return ops.subtract(losses, self._lower_bounds)

    def call(
        self,
        losses: Any,
        present: Any = None,
        training: bool = False,
        return_weights: bool = False,
    ) -> Any:
        """Returns the weighted losses; see `Weighting`."""
        if training and not self.needs_losses_after_step:
            present_now = ops.ones_like(losses) if present is None else present
            self.update_after_step(ops.stop_gradient(losses), present_now)
        return super().call(losses, present, training, return_weights)

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the normalised `z / D`."""
        excess = self._excess(losses)
        above = present * ops.cast(excess > 0, "float32")
        return softmax_over_present(self.xi - log_losses(excess, self.epsilon), above)

    def update(self, losses: Any, present: Any, weights: Any) -> None:
        """Keeps the log losses, to be compared with those after the step."""
        logs = log_losses(self._excess(losses), self.epsilon)
        self.log_losses.assign(ops.where(present > 0, logs, self.log_losses.value))
        self.seen.assign(ops.maximum(self.seen.value, present))

    def update_after_step(self, losses: Any, present: Any) -> None:
        """Moves xi by the decrease of the log losses since `call`.

        Args:
            losses: Losses after the step, `(T,)`.
            present: 1 for a task that is in the batch, else 0, `(T,)`.
        """
        finite = ops.isfinite(losses)
        known = ops.where(finite, ops.cast(present, "float32") * self.seen, 0.0)
        losses = ops.where(known > 0, losses, 1.0)
        logs = log_losses(self._excess(losses), self.epsilon)
        decrease = ops.where(known > 0, self.log_losses - logs, 0.0)
        shares = softmax_over_present(self.xi.value, known)
        behind = decrease - ops.sum(shares * decrease)
        gradient = shares * behind + self.gamma * self.xi
        self.xi.assign(self.xi - self.adam.step(gradient, known))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "gamma": self.gamma,
            "losses_after": self.losses_after,
            "epsilon": self.epsilon,
        }
