"""Probabilities that remember the logits that they were made of."""

import weakref
from typing import Any

from keras import ops

ABSENT = -1e9
"""The logit of a class that is not in the support."""

_NAME = "_keras_mtl_logits"

_logits: dict[int, tuple[weakref.ref, Any]] = {}
"""Of tensors that take no attributes, those of JAX."""


def class_probabilities(logits: Any) -> Any:
    """Returns the softmax over the last axis, in float32.

    The logits are remembered for as long as the probabilities live, so that a loss can
    be computed of them. Of the probabilities alone it could not be: one of 1e-8 is no
    longer told from 0, and a query that is very wrong would have no gradient.

    Args:
        logits: Tensor `(..., N)`.

    Returns:
        Probabilities `(..., N)`.
    """
    logits = ops.cast(logits, "float32")
    probabilities = ops.softmax(logits, axis=-1)
    try:
        # Not in a dict of the module: logits of a graph keep it, and so the
        # probabilities, alive.
        setattr(probabilities, _NAME, logits)
        return probabilities
    except AttributeError:
        key = id(probabilities)
    reference = weakref.ref(probabilities, lambda _: _logits.pop(key, None))
    _logits[key] = (reference, logits)
    return probabilities


def logits_of(probabilities: Any) -> Any:
    """Returns logits of which these are the softmax.

    Args:
        probabilities: What `class_probabilities` returned, or other probabilities:
            then their logarithm is what is returned.
    """
    logits = getattr(probabilities, _NAME, None)
    if logits is not None:
        return logits
    reference, logits = _logits.get(id(probabilities), (lambda: None, None))
    if reference() is probabilities:
        return logits
    return ops.log(ops.maximum(ops.cast(probabilities, "float32"), 1e-37))
