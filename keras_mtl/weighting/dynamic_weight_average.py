"""Weights from how fast each loss has come down."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.weighting.present_tasks import softmax_over_present
from keras_mtl.weighting.running_mean import running_mean
from keras_mtl.weighting.weighting import Weighting

# A loss that grew a million times has all the weight under any temperature in use.
LARGEST_RATIO = 1e6


@keras.saving.register_keras_serializable("keras_mtl")
class DynamicWeightAverage(Weighting):
    """Dynamic weight average (DWA): slow tasks weigh more.

    From the mean losses of the last two windows,

    $$ w_k = T \\, \\mathrm{softmax}_k(r / \\tau), \\qquad
       r_k = \\bar L_k(t - 1) / \\bar L_k(t - 2) $$

    so that a task whose loss comes down slowly gets more weight. In the first
    two windows all weights are 1. Weights are bounded: with the default
    temperature and ratios from 0 to 1 the largest is at most 1.65 times the
    smallest.

    A mean is taken over the batches that hold the task; in a window without any
    the task keeps its ratio. The softmax runs over the tasks that have been
    seen so far, and a batch that lacks one of them leaves the weights of the
    others as they are. Losses should be positive: where the older mean is not,
    the ratio is 1.

    Args:
        temperature: Float, tau. The larger, the more equal the weights.
            Defaults to `2.0`.
        window: Number of training steps in a window. Defaults to `None`: a
            window is an epoch of `fit`, and nothing happens without epochs (in
            a loop over `train_on_batch`, give a number).
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `temperature` is not positive or `window` not a positive
            whole number.

    Example:

    ```python
    weighting = keras_mtl.weighting.DynamicWeightAverage(window=1)
    weighting(np.array([1.0, 1.0], "float32"), training=True)
    weighting(np.array([0.1, 1.0], "float32"), training=True)
    losses = np.array([0.1, 1.0], "float32")
    _, weights = weighting(losses, return_weights=True)
    weights  # [0.779, 1.221]: the second task has not moved
    ```

    Reference:
        Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention",
        CVPR 2019, https://arxiv.org/abs/1803.10704
    """

    def __init__(
        self, temperature: float = 2.0, window: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.temperature = check_number("temperature", temperature, above=0)
        self.window = None if window is None else check_count("window", window)

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the means of two windows and the ratio."""
        super().build(losses_shape)
        self.mean = self.add_state("mean")
        self.count = self.add_state("count")
        self.previous_mean = self.add_state("previous_mean")
        self.ratio = self.add_state("ratio", initializer="ones")
        self.seen = self.add_state("seen")
        if self.window is not None:
            self.step = self.add_state("step", shape=())

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the softmax of the ratios."""
        seen = ops.maximum(self.seen.value, present)
        return ops.sum(seen) * softmax_over_present(self.ratio / self.temperature, seen)

    def update(self, losses: Any, present: Any, weights: Any) -> None:
        """Takes the losses into the mean; closes the window where it is full."""
        mean, count = running_mean(self.mean, self.count, losses, present)
        self.seen.assign(ops.maximum(self.seen.value, present))
        if self.window is None:
            self.mean.assign(mean)
            self.count.assign(count)
            return
        step = self.step + 1.0
        full = ops.cast(step >= self.window, "float32")
        self._close_window(mean, count, full)
        self.step.assign((1.0 - full) * step)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Closes the window where windows are epochs."""
        if self.window is None and self.built:
            self._close_window(ops.copy(self.mean), ops.copy(self.count), 1.0)

    def _close_window(self, mean: Any, count: Any, full: Any) -> None:
        """Makes the running means those of the last window, where `full` is 1."""
        previous = ops.copy(self.previous_mean)
        known = ops.cast(previous > 0, "float32")
        positive = ops.relu(mean)
        ratio = ops.minimum(positive / (previous + (1.0 - known)), LARGEST_RATIO)
        ratio = known * ratio + 1.0 - known
        closed = full * ops.cast(count > 0, "float32")
        self.ratio.assign(closed * ratio + (1.0 - closed) * self.ratio)
        self.previous_mean.assign(closed * positive + (1.0 - closed) * previous)
        self.mean.assign((1.0 - full) * mean)
        self.count.assign((1.0 - full) * count)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "window": self.window,
        }
