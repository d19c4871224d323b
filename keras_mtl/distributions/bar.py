"""A histogram with tails."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.distributions.distribution import Distribution

_MEDIAN_OF_HALF_NORMAL = 0.6744897501960817
_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


@keras.saving.register_keras_serializable("keras_mtl")
class Bar(Distribution):
    """Probabilities of K bars between borders, of any shape.

    $$ \\log p(y) = \\log \\text{softmax}(l)_k - \\log (b_{k+1} - b_k),
       \\qquad b_k \\le y < b_{k+1} $$

    The first and the last bar are halves of a normal distribution, which begin at their
    inner border and have half of their mass in the width of the bar: so every number
    has a density. Parameters are the K logits of each output, `(..., Dy, K)`.

    Borders that have equal mass under the prior are the right ones: take them from
    labels of many training tasks with `Bar.from_labels`.

    Args:
        borders: Increasing numbers, K + 1, at least 4.

    Raises:
        ValueError: If the borders are few, not finite or not increasing.

    Example:

    ```python
    labels = np.random.default_rng(0).normal(size=10_000)
    bar = keras_mtl.distributions.Bar.from_labels(labels, num_bars=100)
    prior = np.zeros((1, 1, 100))  # every bar is as likely
    float(bar.log_prob(np.zeros((1, 1)), prior)[0, 0])  # that of N(0, 1): -0.92
    ```

    Reference:
        Müller et al., "Transformers Can Do Bayesian Inference", ICLR 2022,
        https://arxiv.org/abs/2112.10510
    """

    def __init__(self, borders: Sequence[float]) -> None:
        numbers = np.asarray(borders, "float64")
        with np.errstate(over="ignore"):
            single = numbers.astype("float32")
        valid = numbers.ndim == 1 and len(numbers) >= 4
        valid = valid and np.isfinite(single).all()
        if not valid or (np.diff(single) <= 0).any():
            raise ValueError(
                "`borders` must be at least 4 finite numbers that increase, also in "
                f"float32. Received: borders={borders!r}"
            )
        self.borders = [float(number) for number in numbers]
        self.raw_size = len(self.borders) - 1
        self._borders = single
        self._widths = np.diff(numbers).astype("float32")
        outer = np.array([self._widths[0], self._widths[-1]])
        self._tails = outer / _MEDIAN_OF_HALF_NORMAL

    @classmethod
    def from_labels(cls, labels: Any, num_bars: int = 100) -> "Bar":
        """Returns bars with equally many of the labels in each.

        Args:
            labels: Array of labels of many tasks, of any shape.
            num_bars: Integer K, at least 3.

        Raises:
            ValueError: If there are too few different labels.
        """
        check_count("num_bars", num_bars, at_least=3)
        quantiles = np.quantile(
            np.asarray(labels, "float64"), np.linspace(0, 1, num_bars + 1)
        )
        if (np.diff(quantiles.astype("float32")) <= 0).any():
            raise ValueError(
                f"`labels` must differ enough for {num_bars} bars. Received: "
                f"{len(np.unique(labels))} different labels of {np.size(labels)}"
            )
        return cls(quantiles)

    def parameters(self, raw: Any) -> Any:
        """Returns the logits, in float32."""
        return ops.cast(raw, "float32")

    def log_prob(self, y: Any, parameters: Any) -> Any:
        """Returns the logarithm of the density at y `(..., Dy)`, in nats."""
        log_mass = ops.log_softmax(self._logits(parameters), axis=-1)
        y = ops.cast(y, "float32")
        place = self._place(y)
        log_mass = _at(log_mass, place)
        within = log_mass - ops.log(ops.take(self._widths, place))
        below, above = self._tail_distances(y)
        distance, tail = self._of_tail(place, below, above)
        outside = (
            log_mass
            + math.log(2)
            - _LOG_ROOT_TWO_PI
            - ops.log(tail)
            - 0.5 * (distance / tail) ** 2
        )
        return ops.where(self._is_outer(place), outside, within)

    def mean(self, parameters: Any) -> Any:
        """Returns the mean `(..., Dy)`."""
        mass = ops.softmax(self._logits(parameters), axis=-1)
        centres = 0.5 * (self._borders[:-1] + self._borders[1:])
        offsets = self._tails * math.sqrt(2 / math.pi)
        centres[0] = self._borders[1] - offsets[0]
        centres[-1] = self._borders[-2] + offsets[1]
        return ops.sum(mass * ops.convert_to_tensor(centres, "float32"), axis=-1)

    def cdf(self, y: Any, parameters: Any) -> Any:
        """Returns the probability of no more than y `(..., Dy)`."""
        mass = ops.softmax(self._logits(parameters), axis=-1)
        y = ops.cast(y, "float32")
        place = self._place(y)
        before = _at(ops.cumsum(mass, axis=-1) - mass, place)
        share = (y - ops.take(self._borders, place)) / ops.take(self._widths, place)
        below, above = self._tail_distances(y)
        first = 1 - ops.erf(below / (self._tails[0] * math.sqrt(2)))
        last = ops.erf(above / (self._tails[1] * math.sqrt(2)))
        share = ops.where(place == 0, first, share)
        share = ops.where(place == self.raw_size - 1, last, share)
        return ops.clip(before + _at(mass, place) * share, 0.0, 1.0)

    def quantile(self, probability: Any, parameters: Any) -> Any:
        """Returns the number that is not exceeded with this probability."""
        mass = ops.softmax(self._logits(parameters), axis=-1)
        probability = ops.cast(probability, "float32") + ops.zeros_like(mass[..., 0])
        mass = mass + ops.zeros_like(probability)[..., None]
        until = ops.cumsum(mass, axis=-1)
        reached = ops.cast(until < probability[..., None], "int32")
        place = ops.minimum(ops.sum(reached, axis=-1), self.raw_size - 1)
        mass = ops.maximum(_at(mass, place), 1e-12)
        share = (probability - _at(until, place)) / mass + 1
        share = ops.clip(share, 0.0, 1.0)
        inside = ops.take(self._borders, place) + share * ops.take(self._widths, place)
        near = ops.clip(share, 1e-6, 1 - 1e-6)
        root = math.sqrt(2)
        first = self._borders[1] - self._tails[0] * root * ops.erfinv(1 - near)
        last = self._borders[-2] + self._tails[1] * root * ops.erfinv(near)
        inside = ops.where(place == 0, first, inside)
        return ops.where(place == self.raw_size - 1, last, inside)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"borders": self.borders}

    def _logits(self, parameters: Any) -> Any:
        logits = ops.cast(parameters, "float32")
        if logits.shape[-1] != self.raw_size:
            raise ValueError(
                f"A Bar has {self.raw_size} logits on the last axis. Received: "
                f"parameters of shape {tuple(logits.shape)}"
            )
        return logits

    def _place(self, y: Any) -> Any:
        place = ops.searchsorted(
            ops.convert_to_tensor(self._borders[1:-1]), ops.reshape(y, (-1,)), "right"
        )
        return ops.reshape(ops.cast(place, "int32"), ops.shape(y))

    def _tail_distances(self, y: Any) -> tuple[Any, Any]:
        below = ops.maximum(self._borders[1] - y, 0.0)
        above = ops.maximum(y - self._borders[-2], 0.0)
        return below, above

    def _of_tail(self, place: Any, below: Any, above: Any) -> tuple[Any, Any]:
        first = place == 0
        distance = ops.where(first, below, above)
        tails = self._tails.astype("float32")
        return distance, ops.where(first, tails[0], tails[1])

    def _is_outer(self, place: Any) -> Any:
        return ops.logical_or(place == 0, place == self.raw_size - 1)


def _at(values: Any, place: Any) -> Any:
    """Returns the entries of the last axis at these places."""
    return ops.squeeze(ops.take_along_axis(values, place[..., None], axis=-1), -1)
