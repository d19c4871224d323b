"""Gradients within a forward pass, on JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def gradients(
    function: Callable[[list[jax.Array]], jax.Array], tensors: list[jax.Array]
) -> list[jax.Array]:
    """Returns the derivatives of a scalar function; zero where it does not depend.

    Args:
        function: A function of the list of tensors.
        tensors: Where to take them.
    """
    return jax.grad(function)([jnp.asarray(t) for t in tensors])
