"""The arguments that a loss of Keras was made with."""

from collections.abc import Mapping
from typing import Any

import keras


def loss_arguments(loss: keras.losses.Loss) -> dict[str, Any]:
    """Returns the config of a loss with the arguments that Keras leaves out of it.

    These are the `delta` of `Huber` and the `axis` of `CosineSimilarity` and of
    `SparseCategoricalCrossentropy`. They are read off the one private attribute of
    Keras that is used here: without them two different losses would be taken for
    one, and a loaded model would train with another loss than the saved one.
    """
    return {**getattr(loss, "_fn_kwargs", {}), **loss.get_config()}


def serialize_losses(given: Any) -> Any:
    """Returns the config of a loss, or of a dict of losses, with all arguments."""
    if isinstance(given, Mapping):
        return {key: serialize_losses(value) for key, value in given.items()}
    config = keras.saving.serialize_keras_object(given)
    if isinstance(given, keras.losses.Loss):
        config["config"] = {**getattr(given, "_fn_kwargs", {}), **config["config"]}
    return config
