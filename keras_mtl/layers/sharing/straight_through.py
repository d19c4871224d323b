"""Choices that are hard forwards and smooth backwards."""

from typing import Any

import keras
from keras import ops


def gumbel_choice(logits: Any, temperature: Any, seed: Any) -> Any:
    """Draws one-hot choices, with the gradient of their smooth version.

    $$ y = \\mathrm{onehot}(\\arg\\max_j s_j), \\qquad
       s = \\mathrm{softmax}((\\text{logits} + g) / \\tau), \\quad g \\sim
       \\mathrm{Gumbel} $$

    Args:
        logits: `(..., n)`, float32.
        temperature: Tau, a number or scalar tensor.
        seed: Seed generator.
    """
    # Away from 0 and from 1, which float32 would round to.
    drawn = keras.random.uniform(ops.shape(logits), 1e-6, 1 - 1e-6, seed=seed)
    noise = -ops.log(-ops.log(drawn))
    soft = ops.softmax((logits + noise) / temperature, axis=-1)
    hard = one_hot_of_largest(soft)
    return soft + ops.stop_gradient(hard - soft)


def one_hot_of_largest(logits: Any) -> Any:
    """Returns 1 for the largest entry along the last axis, the first at a tie."""
    return ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1])
