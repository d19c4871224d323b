"""Attentive neural processes."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.context_decoder import ContextDecoder
from keras_mtl.learners.feature_vectors import (
    check_vectors,
    joined,
    multi_layer_perceptron,
)
from keras_mtl.learners.learner import Learner

_MASKED = -1e9


@keras.saving.register_keras_serializable("keras_mtl")
class AttentiveNeuralProcess(Learner):
    """A conditional neural process whose queries attend to the support.

    $$ r(x) = \\text{attention}\\big(q(x), \\{k(x_i)\\}, \\{h([x_i; y_i])\\}\\big),
       \\qquad \\hat y = g(x, r(x)) $$

    In place of one average for all queries: so a query close to an example can be
    answered by it. phi holds a key and a value of each example. This is the
    deterministic path of the paper; for its latent path see `NeuralProcess`.

    Args:
        output_dim: Integer, the numbers of a label.
        distribution: What is predicted. Defaults to `"gaussian"`.
        width: Integer, units of every layer. Defaults to 128.
        heads: Integer, attention heads; it divides the width. Defaults to 8.
        encoder_depth: Integer, layers of h. Defaults to 3.
        key_depth: Integer, layers of keys and queries. Defaults to 2.
        decoder_depth: Integer, hidden layers of g. Defaults to 3.
        self_attention: Boolean, whether examples of the support attend to each other
            before. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range, or the heads do not divide the
            width.

    Example:

    ```python
    learner = keras_mtl.learners.AttentiveNeuralProcess(output_dim=1, width=32)
    x = np.zeros((2, 10, 1), "float32")
    phi = learner.adapt(x, x, np.ones((2, 10), "bool"))
    assert learner.predict(phi, x).shape == (2, 10, 1, 2)  # mean and scale
    ```

    Reference:
        Kim et al., "Attentive Neural Processes", ICLR 2019,
        https://arxiv.org/abs/1901.05761
    """

    ignores_order = True
    needs_support = False

    def __init__(
        self,
        output_dim: int,
        distribution: Any = "gaussian",
        width: int = 128,
        heads: int = 8,
        encoder_depth: int = 3,
        key_depth: int = 2,
        decoder_depth: int = 3,
        self_attention: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(output_dim=output_dim, distribution=distribution, **kwargs)
        self.width = check_count("width", width)
        self.heads = check_count("heads", heads)
        if width % heads:
            raise ValueError(
                f"`heads` must divide `width`. Received: heads={heads}, width={width}"
            )
        self.encoder_depth = check_count("encoder_depth", encoder_depth)
        self.key_depth = check_count("key_depth", key_depth)
        self.decoder_depth = check_count("decoder_depth", decoder_depth)
        self.self_attention = self_attention
        dtype = self.dtype_policy
        self.value = multi_layer_perceptron([width] * encoder_depth, dtype=dtype)
        self.key = multi_layer_perceptron([width] * key_depth, dtype=dtype)
        self.project = [
            keras.layers.Dense(width, use_bias=False, dtype=dtype) for _ in range(3)
        ]
        self.merge = keras.layers.Dense(width, dtype=dtype)
        self.among_support = None
        if self_attention:
            self.among_support = [
                keras.layers.Dense(width, use_bias=False, dtype=dtype) for _ in range(3)
            ]
        self.decoder = ContextDecoder(
            width, decoder_depth, self.output_size, dtype=dtype
        )

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns keys and values `(B, S, heads, width / heads)`."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        mask = ops.cast(support_mask, "bool")
        value = self.value(joined(support_x, labels))
        if self.among_support is not None:
            query, key, inner = (
                self._heads(layer(value)) for layer in self.among_support
            )
            value = value + self._attend(query, key, inner, mask)
        _, to_key, to_value = self.project
        return {
            "key": self._heads(to_key(self.key(support_x))),
            "value": self._heads(to_value(value)),
            "mask": mask,
            **seen,
        }

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        query = self._heads(self.project[0](self.key(query_x)))
        read = self._attend(query, phi["key"], phi["value"], phi["mask"])
        raw = self.decoder(query_x, self.merge(read)[:, :, None])
        return self.answer(raw[:, :, 0], phi)

    def _attend(self, query: Any, key: Any, value: Any, mask: Any) -> Any:
        """Returns what each query reads `(B, Q, width)`; zero of an empty support."""
        there = ops.cast(mask, "bool")[:, None, None, :]
        key, value = (ops.cast(t, query.dtype) for t in (key, value))
        scores = ops.cast(ops.einsum("bqhd,bshd->bhqs", query, key), "float32")
        scores = scores / math.sqrt(self.width // self.heads)
        attention = ops.softmax(ops.where(there, scores, _MASKED), axis=-1)
        attention = ops.cast(ops.where(there, attention, 0.0), query.dtype)
        read = ops.einsum("bhqs,bshd->bqhd", attention, value)
        return ops.reshape(read, (-1, ops.shape(query)[1], self.width))

    def _heads(self, x: Any) -> Any:
        size = self.width // self.heads
        return ops.reshape(x, (-1, ops.shape(x)[1], self.heads, size))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "width": self.width,
            "heads": self.heads,
            "encoder_depth": self.encoder_depth,
            "key_depth": self.key_depth,
            "decoder_depth": self.decoder_depth,
            "self_attention": self.self_attention,
        }
