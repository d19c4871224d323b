"""Weights from a performance indicator: hard tasks first."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.weighting.per_task_weighting import PerTaskWeighting, constant


@keras.saving.register_keras_serializable("keras_mtl")
class DynamicTaskPrioritization(PerTaskWeighting):
    """Dynamic task prioritisation (DTP): hard tasks first, by a focal weight.

    From the running mean of a performance indicator kappa between 0 (bad) and 1
    (solved),

    $$ w_k = -(1 - \\bar\\kappa_k)^\\gamma \\log \\bar\\kappa_k, \\qquad
       \\bar\\kappa_k \\leftarrow \\alpha \\kappa_k + (1 - \\alpha) \\bar\\kappa_k $$

    The indicator is `exp(-L)` at each step (the likelihood of the labels, if L
    is a cross-entropy), or a metric of the logs after each epoch; until the
    first epoch has ended such a task has weight 1. The running mean starts at
    the first value.

    The weights are not normalised and go to 0 as a task is solved: a small
    total is no fault, and where a solved task should stay trained another
    method is the better choice. Losses should be on the scale of a
    cross-entropy, for `exp(-L)` is 0 beyond that; a negative loss counts as
    solved. Each task is weighed by itself: an absent one changes nothing.

    Args:
        kpi: Dict from task name to the key in the logs of `fit` of a metric
            between 0 and 1, the higher the better, such as
            `{"income": "val_income_auc"}`. A task left out has `exp(-L)`.
            Defaults to `None`: `exp(-L)` for each.
        gamma: Float, focusing exponent. To be tuned; there is no agreed
            default. Defaults to `1.0`.
        alpha: Float in (0, 1], share of the newest value in the running mean.
            Defaults to `0.1`.
        floor: Float in (0, 1). Indicators below it count as this, which bounds
            the weights. Defaults to `1e-7`: at most 16.1.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `gamma` is negative, if `alpha` or `floor` is out of
            range, if `kpi` names a task that there is not, if the logs lack its
            key, or if the metric is not between 0 and 1.

    Example:

    ```python
    weighting = keras_mtl.weighting.DynamicTaskPrioritization()
    losses = np.array([0.1, 2.0], "float32")
    _, weights = weighting(losses, training=True, return_weights=True)
    weights  # [0.0095, 1.729]
    ```

    Reference:
        Guo et al., "Dynamic Task Prioritization for Multitask Learning",
        ECCV 2018, https://openaccess.thecvf.com/content_ECCV_2018/html/Michelle_Guo_Focus_on_the_ECCV_2018_paper.html
    """

    def __init__(
        self,
        kpi: Mapping[str, str] | None = None,
        gamma: float = 1.0,
        alpha: float = 0.1,
        floor: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__({"kpi": kpi}, **kwargs)
        if kpi is not None and not isinstance(kpi, Mapping):
            raise ValueError(
                "`kpi` must be a dict from task name to the key of a metric in the "
                f"logs. Received: kpi={kpi!r}"
            )
        self.gamma = check_number("gamma", gamma, at_least=0)
        self.alpha = check_number("alpha", alpha, above=0, at_most=1)
        self.floor = check_number("floor", floor, above=0, at_most=1)

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the running means of the indicators."""
        super().build(losses_shape)
        self._log_keys = self.per_task("kpi", None)
        self.by_metric = any(key is not None for key in self._log_keys)
        # 1 for the tasks whose indicator is exp(-L)
        self._from_loss = constant([float(key is None) for key in self._log_keys])
        self.indicator = self.add_state("indicator", initializer="ones")
        self.seen = self.add_state("seen")

    def _moved(self, losses: Any, alpha: float) -> Any:
        """Returns the running means with the losses taken in."""
        indicator = ops.exp(-ops.relu(losses))
        share = 1.0 - (1.0 - alpha) * self.seen
        return share * indicator + (1.0 - share) * self.indicator

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns the focal weights."""
        moved = self._moved(losses, self.alpha if training else 0.0)
        if not self.by_metric:
            return self._focal(moved)
        from_loss = ops.convert_to_tensor(self._from_loss, "float32")
        weights = self._focal(from_loss * moved + (1.0 - from_loss) * self.indicator)
        # No epoch has shown the metric of this task.
        unknown = (1.0 - from_loss) * (1.0 - self.seen)
        return (1.0 - unknown) * weights + unknown

    def _focal(self, indicator: Any) -> Any:
        """Returns the weights that the indicators give."""
        indicator = ops.clip(indicator, self.floor, 1.0)
        return -ops.power(1.0 - indicator, self.gamma) * ops.log(indicator)

    def update(self, losses: Any, present: Any, weights: Any) -> None:
        """Takes the losses into the running means."""
        taken = present
        if self.by_metric:
            taken = ops.multiply(present, self._from_loss)
        moved = self._moved(losses, self.alpha)
        self.indicator.assign(taken * moved + (1.0 - taken) * self.indicator)
        self.seen.assign(ops.maximum(self.seen.value, taken))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Takes the metrics of the epoch into the running means.

        Args:
            epoch: Number of the epoch.
            logs: Logs of the epoch. A metric that is NaN is passed over.

        Raises:
            ValueError: If a metric is not there or not between 0 and 1.
        """
        if not self.built or not self.by_metric:
            return
        indicator = ops.convert_to_numpy(self.indicator).copy()
        seen = ops.convert_to_numpy(self.seen).copy()
        for task, key in enumerate(self._log_keys):
            if key is None:
                continue
            value = self._read(key, logs or {})
            if math.isnan(value):
                continue
            share = self.alpha if seen[task] else 1.0
            indicator[task] = share * value + (1.0 - share) * indicator[task]
            seen[task] = 1.0
        self.indicator.assign(indicator)
        self.seen.assign(seen)

    def _read(self, key: str, logs: Mapping[str, float]) -> float:
        """Returns a metric of the logs, which must be between 0 and 1 or NaN."""
        if key not in logs:
            raise ValueError(
                f"`kpi` of DynamicTaskPrioritization names the metric '{key}', which "
                f"is not in the logs of the epoch. Received: logs with {sorted(logs)}"
            )
        value = float(logs[key])
        if value < 0 or value > 1:
            raise ValueError(
                f"The metric '{key}' that `kpi` of DynamicTaskPrioritization names "
                f"must be between 0 and 1. Received: {value}"
            )
        return value

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "alpha": self.alpha,
            "floor": self.floor,
        }
