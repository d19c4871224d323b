"""Queries answered in the light of a context."""

from typing import Any

import keras
from keras import ops


class ContextDecoder(keras.layers.Layer):
    """Dense layers on a query and a context vector, merged by a sum.

    $$ h = \\text{relu}(W_x x + W_c c + W_p (A x \\odot B c) + b) $$

    and then more dense layers. The product lets a class be compared with a query; it is
    there with `compare` alone.

    Args:
        hidden: Integer, units of each hidden layer.
        depth: Integer, number of hidden layers.
        output_size: Integer, raw numbers for each query and context.
        compare: Boolean, whether there is the product.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        hidden: int,
        depth: int,
        output_size: int,
        compare: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        dtype = self.dtype_policy
        self.from_query = keras.layers.Dense(hidden, dtype=dtype)
        self.from_context = keras.layers.Dense(hidden, use_bias=False, dtype=dtype)
        self.compare = compare
        if compare:
            self.query_side = keras.layers.Dense(hidden, use_bias=False, dtype=dtype)
            self.context_side = keras.layers.Dense(hidden, use_bias=False, dtype=dtype)
            self.from_product = keras.layers.Dense(hidden, use_bias=False, dtype=dtype)
        self.hidden_layers = [
            keras.layers.Dense(hidden, activation="relu", dtype=dtype)
            for _ in range(depth - 1)
        ]
        # A bias would be the same for the logits of all classes, and change nothing.
        self.head = keras.layers.Dense(output_size, use_bias=not compare, dtype=dtype)

    def call(self, query_x: Any, context: Any) -> Any:
        """Returns raw numbers `(B, Q, N, output_size)`.

        Args:
            query_x: Features `(B, Q, D)`.
            context: Vectors `(B, N, C)` for all queries, or `(B, Q, 1, C)` for each.
        """
        if len(context.shape) == 3:
            context = context[:, None]  # B, 1, N, C
        query_x = query_x[:, :, None]  # B, Q, 1, D
        hidden = self.from_query(query_x) + self.from_context(context)
        if self.compare:
            product = self.query_side(query_x) * self.context_side(context)
            hidden = hidden + self.from_product(product)
        hidden = ops.relu(hidden)
        for layer in self.hidden_layers:
            hidden = layer(hidden)
        return self.head(hidden)
