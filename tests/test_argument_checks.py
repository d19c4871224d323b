import numpy as np
import pytest

from keras_mtl.argument_checks import (
    check_choice,
    check_count,
    check_number,
)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(1)])
def test_numbers_of_every_kind_become_floats(value):
    assert type(check_number("x", value, above=0, at_most=1)) is float


@pytest.mark.parametrize("value", [0, 2, float("nan"), float("inf"), "1", None, True])
def test_other_values_are_refused_with_the_range(value):
    message = r"`x` must be a finite number greater than 0 and at most 1. Received: x="
    with pytest.raises(ValueError, match=message):
        check_number("x", value, above=0, at_most=1)


def test_counts_are_whole():
    assert check_count("n", np.int64(3)) == 3
    assert check_count("n", 0, at_least=0) == 0
    for value in (0, 1.0, True, "1"):
        with pytest.raises(ValueError, match=r"`n` must be a whole number of at least"):
            check_count("n", value)


def test_choices_are_listed():
    assert check_choice("kind", "a", ("b", "a")) == "a"
    with pytest.raises(ValueError, match=r"one of \['a', 'b'\]. Received: kind='c'"):
        check_choice("kind", "c", ("b", "a"))
