"""Tells whether a training that is on record is the one that is asked for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mtl.models import MultiTaskModel

_NOT_SETTINGS = ("verbose", "callbacks")
_NAMES = ("name", "keras_history", "input_layers", "output_layers")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Returns a number in hexadecimal that changes with the settings.

    Args:
        settings: Dict of numbers, strings, lists, dicts, and what has a config.
    """
    said = json.dumps(_said(settings), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def made_by(
    model: MultiTaskModel, metrics: Sequence[str], data: str, arguments: Mapping
) -> str:
    """Returns a fingerprint of what a training depends on.

    Args:
        model: The compiled model.
        metrics: Names of its metrics in the logs.
        data: Fingerprint of the data.
        arguments: Arguments of `fit`.
    """
    compiled = dict(model.compile_arguments)
    callbacks = arguments.get("callbacks") or []
    return fingerprint(
        {
            "layers": [[layer.dtype_policy.name, layer] for layer in model.layers],
            "variables": [list(v.shape) for v in model.trainable_variables],
            "compiled": {**compiled, "optimizer": model.optimizer},
            "metrics": list(metrics),
            "data": data,
            "callbacks": [[type(each).__name__, vars(each)] for each in callbacks],
            "fit": {k: v for k, v in arguments.items() if k not in _NOT_SETTINGS},
        }
    )


def fingerprint_of_data(data: Any) -> str:
    """Returns a fingerprint of data: of arrays their content, else their kind.

    Args:
        data: A nest of arrays and datasets.
    """
    digest = hashlib.sha256()
    for leaf in keras.tree.flatten(data):
        if isinstance(leaf, np.ndarray) and leaf.dtype != object:
            digest.update(f"{leaf.shape} {leaf.dtype}".encode())
            digest.update(np.ascontiguousarray(leaf).data)
        else:
            digest.update(type(leaf).__name__.encode())
    return digest.hexdigest()


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
