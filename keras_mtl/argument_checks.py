"""Errors for arguments out of range."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def check_number(
    argument: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> float:
    """Returns the number as a float, or says what was expected.

    Args:
        argument: Name of the argument, for the message.
        value: What the user gave.
        above: The number must be greater than this.
        at_least: The number must be no smaller than this.
        at_most: The number must be no greater than this.

    Raises:
        ValueError: If it is no finite number in the range.
    """
    bounds = []
    if above is not None:
        bounds.append(f"greater than {above:g}")
    if at_least is not None:
        bounds.append(f"at least {at_least:g}")
    if at_most is not None:
        bounds.append(f"at most {at_most:g}")
    valid = (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
    )
    if not valid:
        expected = " and ".join(bounds)
        raise ValueError(
            f"`{argument}` must be a finite number{' ' if bounds else ''}{expected}. "
            f"Received: {argument}={value!r}"
        )
    return float(value)


def check_count(argument: str, value: Any, *, at_least: int = 1) -> int:
    """Returns the whole number as an int, or says what was expected.

    Args:
        argument: Name of the argument, for the message.
        value: What the user gave.
        at_least: The number must be no smaller than this.

    Raises:
        ValueError: If it is no whole number in the range.
    """
    valid = isinstance(value, Integral) and not isinstance(value, bool)
    if not valid or value < at_least:
        raise ValueError(
            f"`{argument}` must be a whole number of at least {at_least}. "
            f"Received: {argument}={value!r}"
        )
    return int(value)


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Returns the string, or lists the strings that are admitted.

    Args:
        argument: Name of the argument, for the message.
        value: What the user gave.
        choices: The strings admitted.

    Raises:
        ValueError: If it is none of them.
    """
    choices = sorted(choices)
    if value not in choices:
        raise ValueError(
            f"`{argument}` must be one of {choices}. Received: {argument}={value!r}"
        )
    return value


def check_range(
    name: str, value: tuple[float, float], above: float | None = None
) -> tuple[float, float]:
    """Returns a pair of numbers in order.

    Args:
        name: Name of the argument.
        value: What the user gave: a pair, or one number for both.
        above: Both must be greater than this.

    Raises:
        ValueError: If it is no pair of numbers, or not in order.
    """
    pair = value if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2:
        raise ValueError(
            f"`{name}` must be a pair of numbers. Received: {name}={value!r}"
        )
    low, high = (check_number(name, number, above=above) for number in pair)
    if low > high:
        raise ValueError(
            f"`{name}` must have its least number first. Received: {name}={value!r}"
        )
    return low, high
