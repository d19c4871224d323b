import keras
import numpy as np
import pytest

from keras_mtl.data.batch_dtype import (
    check_exact_as_float,
    float_label_dtype,
    input_dtype,
    label_dtype,
    to_float_labels,
    weight_dtype,
)


@pytest.fixture
def floatx():
    before = keras.config.floatx()
    yield keras.config.set_floatx
    keras.config.set_floatx(before)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["float64"], "float32"),
        (["float16", "float64"], "float32"),
        (["int32", "float64"], "float32"),
        (["uint8"], "uint8"),
        (["uint8", "int16"], "int16"),
        (["bool", "bool"], "bool"),
        (["U3", "U7"], "U7"),
    ],
)
def test_what_holds_all(dtypes, expected):
    assert input_dtype(list(map(np.dtype, dtypes))) == np.dtype(expected)
    assert label_dtype(list(map(np.dtype, dtypes))) == np.dtype(expected)


@pytest.mark.parametrize(
    ("name", "inputs", "labels"),
    [
        ("float16", "float16", "float32"),
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
    ],
)
def test_follows_the_float_type_of_keras(floatx, name, inputs, labels):
    floatx(name)
    assert input_dtype([np.dtype("float32")]) == np.dtype(inputs)
    assert weight_dtype() == np.dtype(inputs)
    assert label_dtype([np.dtype("float32")]) == np.dtype(labels)
    assert float_label_dtype() == np.dtype(labels)


def test_integers_are_exact_up_to_the_limit(floatx):
    largest = np.array([2**24, -(2**24)])
    np.testing.assert_array_equal(to_float_labels("a", largest), largest)
    with pytest.raises(ValueError, match=r"task 'a'.*Received.*16777217"):
        check_exact_as_float("a", largest + 1)
    floatx("float64")
    np.testing.assert_array_equal(to_float_labels("a", largest + 1), largest + 1)


def test_extreme_integers_do_not_overflow_the_check():
    with pytest.raises(ValueError, match="9223372036854775808"):
        check_exact_as_float("a", np.array([-(2**63)]))


def test_labels_without_rows_pass():
    assert to_float_labels("a", np.zeros(0, "int64")).shape == (0,)
