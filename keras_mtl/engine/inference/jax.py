"""Compiled functions of a model, on JAX."""

from collections.abc import Callable
from typing import Any

import jax
import keras


def compiled(model: keras.Model, function: Callable) -> Callable:
    """Returns the function, compiled.

    Args:
        model: The model whose variables it reads; it must be built.
        function: A function of nests of tensors.
    """

    @jax.jit
    def stateless(values: list[Any], arguments: tuple[Any, ...]) -> Any:
        mapping = zip(model.variables, values, strict=True)
        with keras.StatelessScope(state_mapping=list(mapping)):
            return function(*arguments)

    def of_current_values(*arguments: Any) -> Any:
        return stateless([v.value for v in model.variables], arguments)

    return of_current_values
