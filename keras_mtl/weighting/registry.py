"""Weightings by name."""

import inspect

import keras

from keras_mtl.weighting.dynamic_task_prioritization import DynamicTaskPrioritization
from keras_mtl.weighting.dynamic_weight_average import DynamicWeightAverage
from keras_mtl.weighting.equal import Equal
from keras_mtl.weighting.famo import FAMO
from keras_mtl.weighting.geometric_mean import GeometricMean
from keras_mtl.weighting.grad_norm import GradNorm
from keras_mtl.weighting.group_dro import GroupDRO
from keras_mtl.weighting.imtl_loss import IMTLLoss
from keras_mtl.weighting.random_weighting import RandomWeighting
from keras_mtl.weighting.scale_invariant import ScaleInvariant
from keras_mtl.weighting.schedule import Schedule
from keras_mtl.weighting.smooth_tchebycheff import SmoothTchebycheff
from keras_mtl.weighting.static import Static
from keras_mtl.weighting.uncertainty import Uncertainty
from keras_mtl.weighting.weighting import Weighting

# `Schedule` has no name: it is nothing without the function that it is given.
WEIGHTINGS = {
    "dynamic_task_prioritization": DynamicTaskPrioritization,
    "dynamic_weight_average": DynamicWeightAverage,
    "equal": Equal,
    "famo": FAMO,
    "geometric_mean": GeometricMean,
    "grad_norm": GradNorm,
    "group_dro": GroupDRO,
    "imtl_loss": IMTLLoss,
    "random_weighting": RandomWeighting,
    "scale_invariant": ScaleInvariant,
    "smooth_tchebycheff": SmoothTchebycheff,
    "static": Static,
    "uncertainty": Uncertainty,
}

ALIASES = {
    "dtp": "dynamic_task_prioritization",
    "dwa": "dynamic_weight_average",
    "sum": "equal",
    "gls": "geometric_mean",
    "gradnorm": "grad_norm",
    "dro": "group_dro",
    "imtl_l": "imtl_loss",
    "random": "random_weighting",
    "rlw": "random_weighting",
    "si": "scale_invariant",
    "stch": "smooth_tchebycheff",
    "uw": "uncertainty",
}


def names() -> list[str]:
    """Returns the names of the weightings that `get` knows, sorted.

    Example:

    ```python
    keras_mtl.weighting.names()[0]  # "dynamic_task_prioritization"
    ```
    """
    return sorted(WEIGHTINGS)


def get(identifier: str | dict | Weighting | None) -> Weighting:
    """Returns a weighting by name, from its config, or as it is.

    Args:
        identifier: One of `names()`, one of the aliases `"dro"`, `"dtp"`,
            `"dwa"`, `"gls"`, `"gradnorm"`, `"imtl_l"`, `"random"`, `"rlw"`,
            `"si"`, `"stch"`, `"sum"` and `"uw"`, or the name of the class, in
            upper or lower case; a dict made by
            `keras.saving.serialize_keras_object`; a weighting, which is returned
            as it is; or `None` for `Equal`.

    Raises:
        ValueError: If the name is unknown, or if a class or anything else is
            given.

    Example:

    ```python
    keras_mtl.weighting.get("uncertainty")
    keras_mtl.weighting.get("dwa").temperature  # 2.0
    ```
    """
    if identifier is None:
        return Equal()
    if isinstance(identifier, Weighting):
        return identifier
    if isinstance(identifier, str):
        return _by_name(identifier)
    if isinstance(identifier, dict):
        return _from_config(identifier)
    if inspect.isclass(identifier) and issubclass(identifier, Weighting):
        raise ValueError(
            "`weighting` must be an instance, not a class: instantiate it, "
            f"`{identifier.__name__}(...)`. Received: weighting={identifier}"
        )
    raise ValueError(
        "`weighting` must be a name, a config, an instance of "
        f"`keras_mtl.weighting.Weighting` or None. Received: weighting={identifier!r}"
    )


def _by_name(identifier: str) -> Weighting:
    """Returns the weighting of a name, an alias or a class name."""
    name = identifier.lower().replace("-", "_").replace(" ", "_")
    name = ALIASES.get(name, name)
    if name == "schedule":
        raise ValueError(
            "A schedule needs the function of the step that the weights are: give "
            "an instance, `keras_mtl.weighting.Schedule(...)`. "
            f"Received: weighting={identifier!r}"
        )
    by_class_name = {cls.__name__.lower(): cls for cls in WEIGHTINGS.values()}
    cls = WEIGHTINGS.get(name) or by_class_name.get(name)
    if cls is None:
        raise ValueError(
            f"`weighting` must be one of {names()}, or one of the aliases "
            f"{sorted(ALIASES)}. Received: weighting={identifier!r}"
        )
    return cls()


def _from_config(identifier: dict) -> Weighting:
    """Returns the weighting of a serialised config."""
    classes = {cls.__name__: cls for cls in [*WEIGHTINGS.values(), Schedule]}
    weighting = keras.saving.deserialize_keras_object(identifier, classes)
    if not isinstance(weighting, Weighting):
        raise ValueError(
            "`weighting` as a dict must be the config of a weighting, as "
            "`keras.saving.serialize_keras_object` gives it. "
            f"Received: weighting={identifier!r}"
        )
    return weighting
