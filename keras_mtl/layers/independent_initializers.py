"""Initial values for parameters that several tasks hold side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def independent_initializers(
    initializer: Callable[..., Any], count: int
) -> list[Callable[..., Any]]:
    """Returns `count` initializers that are like this one and draw independently.

    A Keras initializer gives the same values each time it is called, unless its
    seed is a `keras.random.SeedGenerator`. A copy without a seed draws a fresh
    one, and those of an initializer with an integer seed get seeds made from it.

    Args:
        initializer: An initializer, or any function of `shape` and `dtype`.
        count: How many.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return [initializer] * count
    config = initializer.get_config()
    seed = config.get("seed")
    if "seed" in config and seed is None:
        return [initializer.clone() for _ in range(count)]
    if isinstance(seed, int):
        seeds = np.random.SeedSequence(seed).generate_state(count) >> 1  # fit in int32
        return [initializer.from_config({**config, "seed": int(s)}) for s in seeds]
    return [initializer] * count


def with_seeds_of_its_own(config: Any, place: int) -> Any:
    """Returns the config of a layer with other integer seeds, wherever it has any.

    Layers made of it for several places draw independently, and for a place always
    alike. What has no seed draws a fresh one anyway.

    Args:
        config: A config, or what is in one.
        place: Which copy it is for. At place 0 it keeps its seeds.
    """
    if isinstance(config, dict):
        return {
            key: _seed_at(value, place)
            if key == "seed"
            else with_seeds_of_its_own(value, place)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(with_seeds_of_its_own(value, place) for value in config)
    return config


def _seed_at(seed: Any, place: int) -> Any:
    if not isinstance(seed, int) or place == 0:
        return seed
    return int(np.random.SeedSequence([abs(seed), place]).generate_state(1)[0] >> 1)


class StackedInitializer:
    """Initialises a stack, such as `(T, ...)`, slice by slice.

    Every slice is drawn as if it stood alone: its scale follows from its own
    fan-in, not from that of the stack.

    Args:
        initializer: Initializer of one slice.
        axis: The axis that the slices are stacked along.
    """

    def __init__(self, initializer: Callable[..., Any], axis: int = 0) -> None:
        self.initializer = initializer
        self.axis = axis

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Returns the stack, of shape `shape`."""
        shape = list(shape)
        draws = independent_initializers(self.initializer, shape.pop(self.axis))
        slices = [draw(tuple(shape), dtype=dtype) for draw in draws]
        return ops.stack(slices, axis=self.axis)
