"""How tasks are weighed and conditioned, as hyperparameters."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_mtl import aggregation, weighting
from keras_mtl.layers import AdditiveConditioning, ConcatConditioning, FiLM
from keras_mtl.tuning.hyperparameters import choose

NONE = "none"
PLACES = ("parameters", "representation")


def choose_weighting(
    hp: Any, weightings: Sequence[Any] = ("equal", "uncertainty")
) -> weighting.Weighting:
    """Returns a loss weighting, of those given, by the hyperparameter `"weighting"`.

    Args:
        hp: `keras_tuner.HyperParameters`.
        weightings: List of names, or of instances, which are copied.

    Returns:
        A `weighting.Weighting` of its own.

    Raises:
        ValueError: If a name is unknown, or one is there twice.

    Example:

    ```python
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    layer = keras_mtl.tuning.choose_weighting(hp, ["uncertainty", "equal"])
    model = keras_mtl.MultiTaskModel(
        x := keras.Input((4,)), {t: keras.layers.Dense(1)(x) for t in "ab"}
    )
    model.compile("adam", loss="mse", weighting=layer)
    ```
    """
    named = _by_name("weightings", weightings, weighting.get)
    return _copy(named[choose(hp, "weighting", list(named))])


def choose_aggregator(
    hp: Any,
    aggregators: Sequence[Any] = (None, "pcgrad"),
    places: Sequence[str] = PLACES[:1],
) -> dict[str, Any]:
    """Returns an aggregator, and where it aggregates, as arguments of `compile`.

    By the hyperparameters `"aggregator"` and, where there are several places and the
    aggregator is not `None`, `"aggregate_at"`.

    Args:
        hp: `keras_tuner.HyperParameters`.
        aggregators: List of names, of instances, which are copied, and of `None`.
        places: List of `"parameters"` and `"representation"`. Defaults to the first.

    Raises:
        ValueError: If a name is unknown, or one is there twice.

    Example:

    ```python
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    arguments = keras_mtl.tuning.choose_aggregator(hp, ["pcgrad", None])
    assert arguments["aggregate_at"] == "parameters"
    ```
    """
    unknown = [place for place in places if place not in PLACES]
    if unknown or not places or isinstance(places, str):
        raise ValueError(
            f"`places` must be a list of some of {list(PLACES)}. "
            f"Received: places={places!r}"
        )
    named = _by_name("aggregators", aggregators, aggregation.get)
    chosen = choose(hp, "aggregator", list(named))
    some = [name for name in named if name != NONE]
    arguments = {"aggregator": _copy(named[chosen]), "aggregate_at": PLACES[0]}
    if some:
        conditions = [("aggregator", some)]
        place = choose(hp, "aggregate_at", list(places), conditions)
        arguments["aggregate_at"] = place or PLACES[0]
    return arguments


def _gate(x: Any, z: Any, name: str) -> Any:
    """Returns the features, each times a number between 0 and 1 that z says."""
    channels = x.shape[-1]
    gate = keras.layers.Dense(channels, "sigmoid", name=name)(z)
    inner = len(x.shape) - 2
    return x * keras.layers.Reshape((1,) * inner + (channels,))(gate)


CONDITIONING: dict[str, Callable[[Any, Any, str], Any]] = {
    "concatenate": lambda x, z, name: ConcatConditioning(name=name)(x, z),
    "add": lambda x, z, name: AdditiveConditioning(name=name)(x, z),
    "film": lambda x, z, name: FiLM(name=name)(x, z),
    "gate": _gate,
}


def choose_conditioning(
    hp: Any,
    places: int | Sequence[int],
    how: Sequence[str] = tuple(CONDITIONING),
) -> Callable[[int, Any, Any], Any]:
    """Returns a function that conditions features on a task descriptor.

    At any of the places: by the hyperparameter `"conditioning_<i>"`, which is `"none"`
    or says how, of `"concatenate"`, `"add"`, `"film"` and `"gate"` (the sigmoid of a
    linear function of the descriptor as a factor of each feature).

    Args:
        hp: `keras_tuner.HyperParameters`.
        places: Integer, number of places, such as before each block; or a list of the
            numbers of those at which there is a choice.
        how: List of ways. Defaults to all.

    Returns:
        A function of the number of a place, the features `(B, ..., C)` and the
        descriptor `(B, dim)`, which returns features: the same where a list of places
        has not this one.

    Raises:
        ValueError: If a way is unknown.

    Example:

    ```python
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    condition = keras_mtl.tuning.choose_conditioning(hp, places=2)
    x, task = keras.Input((8,), name="x"), keras.Input((), name="task", dtype="int32")
    z = keras_mtl.layers.TaskEmbedding(3, 4)(task)
    h = condition(0, x, z)
    h = condition(1, keras.layers.Dense(16, "relu")(h), z)
    ```
    """
    check_ways(how)
    numbers = range(places) if isinstance(places, int) else places
    names = {place: f"conditioning_{place}" for place in numbers}
    ways = {place: choose(hp, name, [*how, NONE]) for place, name in names.items()}

    def condition(place: int, x: Any, z: Any) -> Any:
        if isinstance(places, int) and place not in ways:
            raise ValueError(
                f"There are {places} places, from 0. Received: place={place}"
            )
        way = ways.get(place, NONE)
        if way == NONE:
            return x
        return CONDITIONING[way](x, z, names[place])

    return condition


def check_ways(how: Sequence[str]) -> None:
    """Raises an error if a way of conditioning is unknown, or there is none.

    Raises:
        ValueError: If so.
    """
    unknown = [way for way in how if way not in CONDITIONING]
    if unknown or not how or isinstance(how, str):
        raise ValueError(
            f"`how` must be a list of some of {list(CONDITIONING)}. "
            f"Received: how={how!r}"
        )


def _by_name(
    argument: str, given: Sequence[Any], get: Callable[[Any], Any]
) -> dict[str, Any]:
    """Returns what may be chosen, by a name.

    Instances that Keras has named are called by their class alone: its numbers depend
    on what a program has made before.

    Raises:
        ValueError: If a name is there twice.
    """
    if isinstance(given, str) or not given:
        raise ValueError(f"`{argument}` must be a list. Received: {argument}={given!r}")
    found = {}
    for one in given:
        name = one if isinstance(one, str) else NONE if one is None else _name(one)
        if name in found:
            raise ValueError(
                f"Each of `{argument}` needs a name of its own, other than Keras's "
                f"names with numbers. Received: {name!r} twice"
            )
        found[name] = None if one is None else get(one)
    return found


def _name(given: Any) -> str:
    """Returns the name of an instance, without a number that Keras has given it."""
    config = {k: v for k, v in given.get_config().items() if k != "name"}
    of_class = re.sub(r"_\d+$", "", type(given).from_config(config).name)
    given_by_keras = re.fullmatch(rf"{re.escape(of_class)}_\d+", given.name)
    return of_class if given_by_keras else given.name


def _copy(given: Any) -> Any:
    """Returns a copy of a weighting or an aggregator, with state of its own."""
    return None if given is None else type(given).from_config(given.get_config())
