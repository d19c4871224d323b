"""Tells whether a training that is on record is the one that is asked for."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_NAMES = ("name", "keras_history", "input_layers", "output_layers")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Returns a number in hexadecimal that changes with the settings.

    Args:
        settings: Dict of numbers, strings, lists, dicts, and what has a config.
    """
    said = json.dumps(_said(settings), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _said(given: Any) -> Any:
    """Returns settings for JSON: configs, and of what has none its kind.

    Without names, which Keras numbers as layers are made.
    """
    if given is None or isinstance(given, bool | int | float | str):
        return given
    if isinstance(given, Mapping):
        return {str(k): _said(v) for k, v in given.items() if str(k) not in _NAMES}
    if isinstance(given, list | tuple):
        return [_said(value) for value in given]
    if hasattr(given, "get_config"):
        try:
            return [type(given).__name__, _said(given.get_config())]
        except NotImplementedError:  # A layer of one's own, without a config.
            pass
    return getattr(given, "__qualname__", type(given).__name__)
