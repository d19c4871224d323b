"""Uniform noise that can be asked for at any place."""

import numpy as np

_WORDS = 4
"""Words of 64 bits that Philox makes at once."""


class CounterNoise:
    """Rows of uniform numbers; row i is a pure function of the seed and i.

    Rows are blocks of one random stream (Philox, whose state is a counter), so that
    some of them in a row are made in one call, wherever they begin.

    Args:
        seed: Non-negative integer.
        width: Numbers in a row.
        stream: Non-negative integer. Other streams of a seed are independent.
    """

    def __init__(self, seed: int, width: int, stream: int = 0) -> None:
        sequence = np.random.SeedSequence(seed, spawn_key=(stream,))
        self._key = sequence.generate_state(2, "uint64")
        self._width = width
        self._blocks = -(-width // _WORDS)

    def __call__(self, first: int, count: int) -> np.ndarray:
        """Returns rows `(count, width)`, numbers in [0, 1).

        Args:
            first: Index of the first row.
            count: Number of rows.
        """
        bits = np.random.Philox(key=self._key, counter=first * self._blocks)
        words = bits.random_raw(count * self._blocks * _WORDS)
        rows = words.reshape(count, self._blocks * _WORDS)[:, : self._width]
        return (rows >> np.uint64(11)) * 2.0**-53


class NoiseColumns:
    """Hands out the columns of noise, each once.

    Args:
        noise: Array `(rows, width)`.
    """

    def __init__(self, noise: np.ndarray) -> None:
        self._noise = noise
        self._taken = 0

    def take(self, *shape: int) -> np.ndarray:
        """Returns noise `(rows, *shape)` that has not been handed out."""
        start = self._taken
        self._taken += int(np.prod(shape, dtype="int64"))
        if self._taken > self._noise.shape[1]:
            raise IndexError(
                f"There are {self._noise.shape[1]} columns of noise, "
                f"{self._taken} are asked for"
            )
        return self._noise[:, start : self._taken].reshape(len(self._noise), *shape)
