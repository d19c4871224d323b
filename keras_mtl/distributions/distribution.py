"""What every predictive distribution has."""

from typing import Any

import keras


class Distribution:
    """The distribution of one number, as the last axis of a tensor describes it.

    A learner makes `raw_size` numbers for each output; `parameters` turns them into
    what it returns, `(..., Dy, parameter_size)`, from which all else is computed. All
    of it is computed in float32.
    """

    raw_size: int
    """Numbers that a learner makes for each output."""

    def parameters(self, raw: Any) -> Any:
        """Returns what the learner returns, of raw numbers `(..., Dy, raw_size)`."""
        raise NotImplementedError

    def log_prob(self, y: Any, parameters: Any) -> Any:
        """Returns the logarithm of the density at y `(..., Dy)`, in nats."""
        raise NotImplementedError

    def mean(self, parameters: Any) -> Any:
        """Returns the mean `(..., Dy)`."""
        raise NotImplementedError

    def cdf(self, y: Any, parameters: Any) -> Any:
        """Returns the probability of no more than y `(..., Dy)`."""
        raise NotImplementedError

    def quantile(self, probability: Any, parameters: Any) -> Any:
        """Returns the number that is not exceeded with this probability.

        Args:
            probability: Number, or tensor that broadcasts with `(..., Dy)`.
            parameters: What a learner returned, `(..., Dy, parameter_size)`.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distribution":
        """Returns the distribution of `get_config`."""
        return cls(**config)


def get(identifier: Any) -> Distribution | None:
    """Returns the distribution of a name, a config, or the distribution itself.

    Args:
        identifier: `"gaussian"`, a `Distribution`, its config, or `None` for none:
            a plain number.

    Raises:
        ValueError: If it is something else.
    """
    from keras_mtl.distributions.gaussian import Gaussian

    if identifier is None or isinstance(identifier, Distribution):
        return identifier
    if identifier == "gaussian":
        return Gaussian()
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    raise ValueError(
        "`distribution` must be 'gaussian', a `keras_mtl.distributions.Distribution` "
        f"or None. Received: distribution={identifier!r}"
    )
