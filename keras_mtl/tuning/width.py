"""Wider and narrower layers, by their configs."""

from typing import Any

SIZES = ("units", "filters")
SHAPES = ("build_config", "build_input_shape")


def with_width(config: Any, factor: float) -> Any:
    """Returns the config of a layer with a multiple of its units or filters.

    Shapes of inputs, of a `Sequential` that knows them, are left out: layers find them
    anew.

    Args:
        config: Config of a layer, which may hold others, such as a `Sequential`.
        factor: Factor for every integer of a name in `SIZES`, which is rounded, and at
            least 1.
    """
    if isinstance(config, dict):
        inner = config.get("layers")
        if isinstance(inner, list) and "input_layers" not in config:
            config = {**config, "layers": [e for e in inner if not _is_input(e)]}
        return {
            key: max(1, round(value * factor))
            if key in SIZES and isinstance(value, int)
            else with_width(value, factor)
            for key, value in config.items()
            if key not in SHAPES
        }
    if isinstance(config, list | tuple):
        return type(config)(with_width(value, factor) for value in config)
    return config


def _is_input(config: Any) -> bool:
    return isinstance(config, dict) and config.get("class_name") == "InputLayer"
