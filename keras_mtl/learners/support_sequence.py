"""A support as a sequence: the examples that are there, then those that are not."""

from typing import Any

from keras import ops


def in_front(mask: Any, *tensors: Any) -> tuple[Any, ...]:
    """Moves the examples that are there to the front, in their order.

    Args:
        mask: Whether each example is there `(B, S)`.
        *tensors: Tensors `(B, S, ...)` with three axes.

    Returns:
        The mask, booleans, and the tensors.
    """
    mask = ops.cast(mask, "bool")
    length = ops.shape(mask)[1]
    place = ops.arange(length, dtype="int32")[None]
    order = ops.argsort(ops.where(mask, place, place + length), axis=1)
    moved = [ops.take_along_axis(t, order[..., None], axis=1) for t in tensors]
    mask = ops.take_along_axis(ops.cast(mask, "int32"), order, axis=1) > 0
    return (mask, *moved)


def at_place(sequence: Any, place: Any) -> Any:
    """Returns one token of each sequence; zero where the place is before the first.

    Args:
        sequence: `(B, S, D)`.
        place: Integers `(B,)`.

    Returns:
        Tokens `(B, D)`.
    """
    there = ops.cast(place >= 0, sequence.dtype)[:, None]
    place = ops.maximum(place, 0)[:, None, None]
    return there * ops.squeeze(ops.take_along_axis(sequence, place, axis=1), 1)
