"""Which dtype the rows of several tasks share in one batch."""

import keras
import numpy as np


def input_dtype(dtypes) -> np.dtype:
    """The dtype that holds all: Keras's float type as soon as one is a float."""
    if any(_is_float(dtype) for dtype in dtypes):
        return np.dtype(keras.config.floatx())
    return np.result_type(*dtypes)


def label_dtype(dtypes) -> np.dtype:
    """As `input_dtype`, but never below float32 where it is a float."""
    if any(_is_float(dtype) for dtype in dtypes):
        return float_label_dtype()
    return np.result_type(*dtypes)


def weight_dtype() -> np.dtype:
    """The dtype of sample weights: Keras's float type."""
    return np.dtype(keras.config.floatx())


def float_label_dtype() -> np.dtype:
    """The float type of labels: float64 where Keras's is, else float32."""
    return np.dtype("float64" if keras.config.floatx() == "float64" else "float32")


def check_exact_as_float(task: str, labels: np.ndarray) -> None:
    """Raises for integer labels that `float_label_dtype` does not hold exactly.

    Beyond 2**24 in float32 they would come out as other integers.
    """
    if labels.dtype.kind not in "iu" or not labels.size:
        return
    limit = 2 ** (np.finfo(float_label_dtype()).nmant + 1)
    largest = max(-int(labels.min()), int(labels.max()))
    if largest > limit:
        raise ValueError(
            f"Integer labels of task '{task}' become {float_label_dtype()} in this "
            "layout, where NaN marks a missing label, and must not exceed "
            f"{limit} to stay exact. Received: a label of magnitude {largest}"
        )


def to_float_labels(task: str, labels: np.ndarray) -> np.ndarray:
    """Labels as floats, where NaN can mark a missing one; exact, or an error."""
    check_exact_as_float(task, labels)
    return labels.astype(float_label_dtype())


def _is_float(dtype):
    # numpy sees bfloat16 as kind "V".
    return dtype.kind in "fV"
