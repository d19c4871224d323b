"""Transformer blocks in which queries read the support and never each other."""

import math
from typing import Any

import keras
from keras import ops

_MASKED = -1e9


class SupportAttentionBlock(keras.layers.Layer):
    """A pre-norm transformer block for two kinds of tokens.

    Tokens of the support attend to all of the support; a token of a query attends to
    the support and to itself. So keys and values of the support, computed once, are all
    that a query needs.

    Args:
        width: Integer, features of a token.
        heads: Integer, number of attention heads; it divides the width.
        hidden: Integer, units of the dense layer within.
        dropout: Number, the rate after attention and dense layers.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.width = width
        self.heads = heads
        dtype = self.dtype_policy
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype)
        self.project = keras.layers.Dense(
            3 * width,
            use_bias=False,
            kernel_initializer=_queries_like_keys,
            dtype=dtype,
        )
        self.merge = keras.layers.Dense(width, dtype=dtype)
        self.norm_dense = keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype)
        self.hidden = keras.layers.Dense(hidden, activation="gelu", dtype=dtype)
        self.output_dense = keras.layers.Dense(width, dtype=dtype)
        self.drop = keras.layers.Dropout(dropout, dtype=dtype)

    def read(self, tokens: Any, mask: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the next tokens of the support, and its keys and values.

        Args:
            tokens: `(B, S, width)`.
            mask: Whether each is there `(B, S)`.
        """
        query, key, value = self._projections(tokens)
        scores = self._scores(query, key)  # B, h, S, S
        scores = ops.where(mask[:, None, None, :], scores, _MASKED)
        attention = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
        attended = ops.einsum("bhqs,bshd->bqhd", attention, value)
        return self._next(tokens, attended), {"key": key, "value": value}

    def remember(self, tokens: Any) -> dict[str, Any]:
        """Returns keys and values alone, for the last block.

        Args:
            tokens: `(B, S, width)`.
        """
        _, key, value = self._projections(tokens)
        return {"key": key, "value": value}

    def ask(self, tokens: Any, memory: dict[str, Any], mask: Any) -> Any:
        """Returns the next tokens of queries.

        Args:
            tokens: `(B, Q, width)`.
            memory: Keys and values of the support, `(B, S, heads, size)`.
            mask: Whether each example of the support is there `(B, S)`.
        """
        query, key, value = self._projections(tokens)
        scores = self._scores(query, memory["key"])  # B, h, Q, S
        scores = ops.where(mask[:, None, None, :], scores, _MASKED)
        own = ops.cast(ops.sum(query * key, axis=-1), "float32")  # B, Q, h
        own = ops.transpose(own, (0, 2, 1))[..., None] / self._root
        attention = ops.softmax(ops.concatenate([scores, own], axis=-1), axis=-1)
        attention = ops.cast(attention, value.dtype)
        attended = (
            ops.einsum("bhqs,bshd->bqhd", attention[..., :-1], memory["value"])
            + ops.transpose(attention[..., -1:], (0, 2, 1, 3)) * value
        )
        return self._next(tokens, attended)

    @property
    def _root(self) -> float:
        return math.sqrt(self.width // self.heads)

    def _projections(self, tokens: Any) -> list[Any]:
        projected = self.project(self.norm(tokens))
        size = self.width // self.heads
        shape = (-1, ops.shape(tokens)[1], 3, self.heads, size)
        return ops.unstack(ops.reshape(projected, shape), 3, axis=2)

    def _scores(self, query: Any, key: Any) -> Any:
        scores = ops.einsum("bqhd,bshd->bhqs", query, key)
        return ops.cast(scores, "float32") / self._root

    def _next(self, tokens: Any, attended: Any) -> Any:
        shape = (-1, ops.shape(tokens)[1], self.width)
        tokens = tokens + self.drop(self.merge(ops.reshape(attended, shape)))
        dense = self.output_dense(self.hidden(self.norm_dense(tokens)))
        return tokens + self.drop(dense)


def _queries_like_keys(shape: tuple[int, int], dtype: Any = None) -> Any:
    """Returns the start of the projections to queries, keys and values.

    Those to queries and to keys start equal, so that a token attends most to what is
    like it: from there a support is learned to be looked up in few steps, where two
    random projections have a long plateau at chance (mimetic initialization: Trockman
    and Kolter, ICML 2023, https://arxiv.org/abs/2305.09828).

    Args:
        shape: That of the kernel, `(width, 3 width)`.
        dtype: Its dtype.
    """
    width = shape[0]
    # An initializer gives the same numbers whenever it is called.
    key, value = (
        keras.initializers.GlorotUniform()((width, width), dtype=dtype)
        for _ in range(2)
    )
    return ops.concatenate([key, key, value], axis=1)
