"""Columns of a table made ready for a network."""

import numpy as np


def standardised(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Columns of zero mean and unit deviation over the given rows, as float32.

    A column that is constant there is only centred.

    Args:
        columns: Array `(n, columns)`.
        rows: Positions of the rows to learn mean and deviation from, those of the
            training split.
    """
    known = columns[rows].astype("float64")
    deviation = known.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    return ((columns - known.mean(axis=0)) / scale).astype("float32")


def one_hot(codes: np.ndarray, categories: list[int]) -> np.ndarray:
    """Each column of codes as a group of columns of zeros and one, as float32.

    Args:
        codes: Integer array `(n, columns)`.
        categories: Number of categories of each column.

    Returns:
        Array `(n, sum(categories))`.
    """
    encoded = np.zeros((len(codes), sum(categories)), "float32")
    first = np.concatenate([[0], np.cumsum(categories)[:-1]]).astype("int64")
    np.put_along_axis(encoded, codes + first, 1.0, axis=1)
    return encoded
