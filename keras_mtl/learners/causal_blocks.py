"""Causal convolutions and attention over a support, and one step more for a query."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.learners.support_sequence import at_place

_MASKED = -1e9


class CausalDenseBlock(keras.layers.Layer):
    """A gated causal convolution of kernel 2, whose outputs join its inputs.

    $$ y_t = [x_t; \\tanh(f_t) \\odot \\sigma(g_t)], \\qquad
       [f_t; g_t] = W_1 x_t + W_0 x_{t - d} + b $$

    Args:
        filters: Integer, features that are added.
        dilation: Integer d.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, filters: int, dilation: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.filters = filters
        self.dilation = dilation
        self.now = keras.layers.Dense(2 * filters, dtype=self.dtype_policy)
        self.past = keras.layers.Dense(
            2 * filters, use_bias=False, dtype=self.dtype_policy
        )

    def read(self, sequence: Any, counts: Any) -> tuple[Any, Any]:
        """Returns the sequence with more features, and what a next token needs.

        Args:
            sequence: Tokens `(B, S, D)`.
            counts: How many of them are there `(B,)`.
        """
        length = ops.shape(sequence)[1]
        padded = ops.pad(sequence, [[0, 0], [self.dilation, 0], [0, 0]])
        past = self.past(padded[:, :length])
        before = self.past(at_place(sequence, counts - self.dilation))
        return self._joined(sequence, past), before

    def ask(self, tokens: Any, before: Any) -> Any:
        """Returns tokens `(B, Q, D)` with more features, each next in the sequence."""
        return self._joined(tokens, before[:, None])

    def _joined(self, x: Any, past: Any) -> Any:
        both = self.now(x) + ops.cast(past, self.compute_dtype)
        gated = ops.tanh(both[..., : self.filters]) * ops.sigmoid(
            both[..., self.filters :]
        )
        return ops.concatenate([x, gated], axis=-1)


class CausalAttentionBlock(keras.layers.Layer):
    """Attention to all tokens until now, whose read joins its inputs.

    Args:
        key_size: Integer, features of keys.
        value_size: Integer, features that are added.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, key_size: int, value_size: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        dtype = self.dtype_policy
        self.root = math.sqrt(key_size)
        self.query = keras.layers.Dense(key_size, dtype=dtype)
        # A bias would add as much to the score of every key, which changes nothing.
        self.key = keras.layers.Dense(key_size, use_bias=False, dtype=dtype)
        self.value = keras.layers.Dense(value_size, dtype=dtype)

    def read(self, sequence: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the sequence with more features, and its keys and values.

        Args:
            sequence: Tokens `(B, S, D)`.
        """
        query, key, value = (f(sequence) for f in (self.query, self.key, self.value))
        place = ops.arange(ops.shape(sequence)[1])
        until_now = (place[None, :] <= place[:, None])[None]  # 1, S, S: of keys last
        scores = ops.where(until_now, self._scores(query, key), _MASKED)
        attention = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
        read = ops.matmul(attention, value)
        sequence = ops.cast(sequence, read.dtype)
        return ops.concatenate([sequence, read], axis=-1), {"key": key, "value": value}

    def ask(self, tokens: Any, memory: dict[str, Any], mask: Any) -> Any:
        """Returns tokens with more features, each next in the sequence.

        Args:
            tokens: `(B, Q, D)`.
            memory: Keys and values `(B, S, size)`.
            mask: Whether each example is there `(B, S)`.
        """
        query, key, value = (f(tokens) for f in (self.query, self.key, self.value))
        scores = self._scores(query, ops.cast(memory["key"], query.dtype))
        scores = ops.where(mask[:, None], scores, _MASKED)
        own = ops.sum(ops.cast(query * key, "float32"), axis=-1, keepdims=True)
        scores = ops.concatenate([scores, own / self.root], axis=-1)
        attention = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
        values = ops.cast(memory["value"], value.dtype)
        read = ops.matmul(attention[..., :-1], values) + attention[..., -1:] * value
        tokens = ops.cast(tokens, read.dtype)
        return ops.concatenate([tokens, read], axis=-1)

    def _scores(self, query: Any, key: Any) -> Any:
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
        return ops.cast(scores, "float32") / self.root
