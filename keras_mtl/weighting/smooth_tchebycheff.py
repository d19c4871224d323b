"""A smooth maximum of the relative losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.weighting.log_losses import log_losses, log_losses_slope
from keras_mtl.weighting.per_task_weighting import PerTaskWeighting, constant, values_of
from keras_mtl.weighting.present_tasks import (
    logsumexp_over_present,
    softmax_over_present,
)
from keras_mtl.weighting.running_mean import running_mean
from keras_mtl.weighting.value_with_slope import value_with_slope


@keras.saving.register_keras_serializable("keras_mtl")
class SmoothTchebycheff(PerTaskWeighting):
    """Smooth Tchebycheff scalarisation (STCH): the worst relative loss, smoothed.

    In a warm-up the sum of the log losses is trained and the mean loss of each
    task is taken as its nadir N. After it,

    $$ L = \\mu K \\log \\sum_k \\exp \\Big( \\frac{\\lambda_k}{\\mu}
           \\log \\frac{L_k}{N_k} \\Big), \\qquad
       w_k = K \\, \\mathrm{softmax}_k \\Big( \\frac{\\lambda}{\\mu}
           \\log \\frac{L}{N} \\Big) \\frac{\\lambda_k}{L_k} $$

    over the K tasks that are present. As mu goes to 0 the objective goes to K
    times the largest of the `lambda_k log(L_k / N_k)`: only the task that has
    gained least is trained. A large mu nears `ScaleInvariant`.

    What is returned is `L / K` for each task that is present, with the gradient
    of that task's part. The value jumps when the warm-up ends.

    Losses must be positive: one that is zero or
    negative counts as zero, has weight 0 and is not trained. A task that the
    warm-up does not see takes its first loss after it as its nadir. In a loop
    over `train_on_batch` there are no epochs, so that the warm-up would not end:
    give `warmup_steps`.

    Args:
        mu: Float, the smoothing. Defaults to `1.0`.
        warmup_epochs: Epochs of warm-up; 0 makes the first loss of a task its
            nadir. Defaults to `4`.
        warmup_steps: Training steps of warm-up, in place of `warmup_epochs`.
            Defaults to `None`.
        preferences: The lambda of each task: a float for all, a list or a dict
            by task name (1 for a task left out). Defaults to `None`: 1 for each.
        epsilon: Float, added to a loss before the logarithm. Defaults to `1e-8`.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `mu`, `epsilon` or a preference is not positive, if a
            warm-up is negative, if there are not as many preferences as tasks,
            or if a dict names a task that there is not.

    Example:

    ```python
    weighting = keras_mtl.weighting.SmoothTchebycheff(warmup_steps=1)
    weighting(np.array([1.0, 100.0], "float32"), training=True)
    losses = np.array([1.0, 50.0], "float32")
    weighted, weights = weighting(losses, return_weights=True)
    weights  # [1.333, 0.0133]: the first task has gained nothing
    ```

    Reference:
        Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective
        Optimization", ICML 2024, https://arxiv.org/abs/2402.19078
    """

    def __init__(
        self,
        mu: float = 1.0,
        warmup_epochs: int = 4,
        warmup_steps: int | None = None,
        preferences: float | Sequence[float] | Mapping[str, float] | None = None,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__({"preferences": preferences}, **kwargs)
        for preference in values_of(preferences):
            check_number("preferences", preference, above=0)
        self.mu = check_number("mu", mu, above=0)
        self.warmup_epochs = check_count("warmup_epochs", warmup_epochs, at_least=0)
        if warmup_steps is not None:
            warmup_steps = check_count("warmup_steps", warmup_steps, at_least=0)
        self.warmup_steps = warmup_steps
        self.epsilon = check_number("epsilon", epsilon, above=0)

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the nadir and the progress of the warm-up."""
        super().build(losses_shape)
        self._preferences = constant(self.per_task("preferences", 1.0))
        self.nadir = self.add_state("nadir")
        self.count = self.add_state("count")
        self.progress = self.add_state("progress", shape=())

    def _warming_up(self) -> Any:
        """Returns 1 while the warm-up lasts, else 0, a scalar."""
        steps = self.warmup_steps
        last = self.warmup_epochs if steps is None else steps
        return ops.cast(self.progress < last, "float32")

    def _relative(self, losses: Any) -> Any:
        """Returns `lambda log(L / N) / mu`."""
        known = ops.cast(self.count > 0, "float32")
        nadir = known * self.nadir + (1.0 - known) * losses
        relative = log_losses(losses, self.epsilon) - log_losses(nadir, self.epsilon)
        return ops.multiply(relative / self.mu, self._preferences)

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the derivatives of the objective."""
        warming_up = self._warming_up()
        shares = softmax_over_present(self._relative(losses), present)
        after = ops.sum(present) * ops.multiply(shares, self._preferences)
        slope = log_losses_slope(losses, self.epsilon)
        return slope * (warming_up + (1.0 - warming_up) * after)

    def objective(self, losses: Any, present: Any, weights: Any) -> Any:
        """Returns the log losses, or `L / K`, with the gradient of each own part."""
        warming_up = self._warming_up()
        constants = ops.stop_gradient(losses)
        share = self.mu * logsumexp_over_present(self._relative(constants), present)
        logs = log_losses(constants, self.epsilon)
        value = warming_up * logs + (1.0 - warming_up) * share
        return value_with_slope(value, losses, weights)

    def update(self, losses: Any, present: Any, weights: Any) -> None:
        """Takes the losses into the nadir while the warm-up lasts."""
        unknown = ops.cast(self.count < 1, "float32")
        taken = present * ops.maximum(self._warming_up(), unknown)
        nadir, count = running_mean(self.nadir, self.count, losses, taken)
        self.nadir.assign(nadir)
        self.count.assign(count)
        if self.warmup_steps is not None:
            steps = ops.minimum(self.progress + 1.0, float(self.warmup_steps))
            self.progress.assign(steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the epochs of the warm-up."""
        if self.warmup_steps is None and self.built:
            self.progress.assign(ops.copy(self.progress) + 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "mu": self.mu,
            "warmup_epochs": self.warmup_epochs,
            "warmup_steps": self.warmup_steps,
            "epsilon": self.epsilon,
        }
