"""Features that learners read: one vector for each example."""

from typing import Any

import keras
from keras import ops


def check_vectors(x: Any, name: str) -> None:
    """Checks that there is one vector for each example.

    Args:
        x: Features `(tasks, examples, D)`.
        name: What they are, for the message.

    Raises:
        ValueError: If they have other axes.
    """
    if len(x.shape) != 3:
        raise ValueError(
            f"`{name}` must be one vector for each example, of shape (tasks, examples, "
            "features): give `MetaModel` an `encoder`, such as "
            "`keras_mtl.learners.conv4()`, for anything else. Received: shape "
            f"{tuple(x.shape)}"
        )


def joined(*parts: Any, dtype: str = "float32") -> Any:
    """Returns one vector of several for each example, such as features and label.

    Args:
        *parts: Vectors `(B, n, size)`, of sizes of their own.
        dtype: Dtype of the result.
    """
    return ops.concatenate([ops.cast(part, dtype) for part in parts], axis=-1)


def multi_layer_perceptron(
    units: list[int],
    activation: str = "relu",
    dtype: Any = None,
    last_bias: bool = True,
    name: str | None = None,
) -> keras.Sequential:
    """Returns dense layers, the last without an activation.

    Args:
        units: Units of each layer.
        activation: Activation of all but the last.
        dtype: Dtype policy of the layers.
        last_bias: Whether the last layer has a bias.
        name: String, optional.
    """
    last = len(units) - 1
    return keras.Sequential(
        [
            keras.layers.Dense(
                size,
                activation=None if i == last else activation,
                use_bias=i < last or last_bias,
                dtype=dtype,
            )
            for i, size in enumerate(units)
        ],
        name=name,
    )
