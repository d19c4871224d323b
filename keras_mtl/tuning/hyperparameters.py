"""Hyperparameters under several conditions at once."""

from collections.abc import Sequence
from typing import Any

from keras_tuner.engine import hyperparameters

Conditions = Sequence[tuple[str, Sequence[Any]]]
"""Names of hyperparameters with values, one of which each has to have."""


def choose(
    hp: Any, name: str, values: Sequence[Any], conditions: Conditions = ()
) -> Any:
    """Returns one of several values, or `None` where it is not active.

    `HyperParameters.conditional_scope` takes a parent within another scope only if the
    parent itself is under that one, so two that are independent of each other could
    not be conditions together.

    Args:
        hp: `keras_tuner.HyperParameters`.
        name: Name of the hyperparameter.
        values: Its values, the first of which is the default.
        conditions: Conditions that all have to hold.
    """
    entry = hyperparameters.Choice(name=name, values=list(values))
    return _enter(hp, entry, conditions)


def choose_number(
    hp: Any,
    name: str,
    low: float,
    high: float,
    default: float | None = None,
    conditions: Conditions = (),
    sampling: str = "linear",
) -> Any:
    """Returns a number from `low` to `high`, or `None` where it is not active.

    Args:
        hp: As in `choose`.
        name: As in `choose`.
        low: The least value. Integers are chosen where it is one.
        high: The greatest.
        default: The default. Defaults to `None`, which is `low`.
        conditions: As in `choose`.
        sampling: As in `HyperParameters.Int` and `Float`.
    """
    kind = hyperparameters.Int if isinstance(low, int) else hyperparameters.Float
    entry = kind(
        name=name, min_value=low, max_value=high, sampling=sampling, default=default
    )
    return _enter(hp, entry, conditions)


def _enter(hp: Any, entry: Any, conditions: Conditions) -> Any:
    config = entry.get_config()
    # Keras Tuner does not export its class of conditions, but reads it from a config.
    config["conditions"] = [
        {"class_name": "Parent", "config": {"name": name, "values": list(values)}}
        for name, values in conditions
    ]
    entry = type(entry).from_config(config)
    hp.merge([entry], overwrite=False)
    return hp.values[entry.name] if hp.is_active(entry) else None
