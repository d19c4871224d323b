"""Functions of a model without a record for gradients, on PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import torch
from keras import ops


def compiled(model: keras.Model, function: Callable) -> Callable:
    """Returns the function, which records nothing for gradients.

    Args:
        model: The model whose variables it reads; it must be built.
        function: A function of nests of tensors.
    """

    @functools.wraps(function)
    def without_gradients(*arguments: Any) -> Any:
        with torch.no_grad():
            tensors = keras.tree.map_structure(ops.convert_to_tensor, arguments)
            return function(*tensors)

    return without_gradients
