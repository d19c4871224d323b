"""Matching networks."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.class_probabilities import ABSENT
from keras_mtl.learners.cosine import unit_vectors
from keras_mtl.learners.feature_vectors import check_vectors
from keras_mtl.learners.learner import Learner


@keras.saving.register_keras_serializable("keras_mtl")
class MatchingNetwork(Learner):
    """Weighs the labels of the support by attention to its examples.

    $$ p(k \\mid x) = \\sum_i a(x, x_i) [y_i = k], \\qquad
       a(x, x_i) \\propto \\exp\\big(s \\cos(f(x), g(x_i))\\big) $$

    The paper has s = 1, with which no class of five can have more than 0.65 of the
    attention: here s is learned, and starts at 10 (`learned_scale`).

    With `full_context` g reads the whole support by an LSTM in both directions, and f
    reads g in some steps of an LSTM with attention (full context embeddings); the
    support is then a sequence.

    Args:
        ways: Integer N, the number of classes of a task.
        learned_scale: Boolean, whether s is learned; else it is 1. Defaults to
            `True`.
        full_context: Boolean. Defaults to `False`: f and g change nothing.
        steps: Integer, steps of f with `full_context`. Defaults to 3.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.MatchingNetwork(ways=2)
    x = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    phi = learner.adapt(x, np.array([[0, 1]]), np.ones((1, 2)))
    learner.predict(phi, np.array([[[0.1, 1.0]]]))  # class 0, almost surely
    ```

    Reference:
        Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016,
        https://arxiv.org/abs/1606.04080
    """

    permutes_labels = True

    def __init__(
        self,
        ways: int,
        learned_scale: bool = True,
        full_context: bool = False,
        steps: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways=ways, **kwargs)
        self.learned_scale = learned_scale
        self.full_context = full_context
        self.steps = check_count("steps", steps)
        self.ignores_order = not full_context
        self.log_scale = None
        if learned_scale:
            self.log_scale = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(2.302585),
                name="log_scale",
            )
        self.support_cells: list[Any] = []
        self.query_cell = None

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Creates the LSTMs of `full_context`, as wide as the features."""
        if self.full_context:
            width = input_shape["support_x"][-1]
            dtype = self.dtype_policy
            self.support_cells = [
                keras.layers.LSTM(
                    width, return_sequences=True, go_backwards=backwards, dtype=dtype
                )
                for backwards in (False, True)
            ]
            self.query_cell = keras.layers.LSTMCell(width, dtype=dtype)
            for layer in self.support_cells:
                layer.build((None, None, width))
            self.query_cell.build((None, 2 * width))

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns g of each example, `(B, S, D)`, and their labels."""
        check_vectors(support_x, "support_x")
        if not self.built:
            self.build({"support_x": tuple(support_x.shape)})
        labels, seen = self.read_labels(support_y, support_mask)
        keys = ops.cast(support_x, "float32")
        if self.full_context:
            keys = keys + self._read_all(support_x, support_mask)
        return {"keys": keys, "labels": labels, **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns probabilities `(B, Q, N)`."""
        check_vectors(query_x, "query_x")
        there = ops.max(phi["labels"], axis=-1)  # B, S
        if self.full_context:
            query_x = self._attend(phi["keys"], there, query_x)
        scores = ops.matmul(
            unit_vectors(query_x), ops.transpose(unit_vectors(phi["keys"]), (0, 2, 1))
        )  # B, Q, S
        if self.log_scale is not None:
            scores = ops.exp(self.log_scale) * scores
        # The sum of the attention to a class, in logarithms.
        of_class = phi["labels"][:, None] > 0  # B, 1, S, N
        by_class = ops.where(of_class, scores[..., None], ABSENT)
        return self.answer(ops.logsumexp(by_class, axis=2), phi)

    def _read_all(self, support_x: Any, mask: Any) -> Any:
        """Returns the sum of both directions at each example `(B, S, D)`."""
        mask = ops.cast(mask, "bool")
        forwards, backwards = (
            layer(support_x, mask=mask) for layer in self.support_cells
        )
        backwards = ops.flip(backwards, axis=1)
        return ops.cast(forwards, "float32") + ops.cast(backwards, "float32")

    def _attend(self, keys: Any, there: Any, query_x: Any) -> Any:
        """Returns f of each query, `(B, Q, D)`."""
        query_x = ops.cast(query_x, "float32")
        width, queries = query_x.shape[-1], ops.shape(query_x)[1]
        flat = ops.reshape(query_x, (-1, width))
        hidden, cell = flat, ops.zeros_like(flat)
        for _ in range(self.steps):
            by_task = ops.reshape(hidden, (-1, queries, width))
            scores = ops.matmul(by_task, ops.transpose(keys, (0, 2, 1)))
            scores = ops.where(there[:, None] > 0, scores, ABSENT)
            read = ops.matmul(ops.softmax(scores, axis=-1), keys)
            read = ops.reshape(read, (-1, width))
            output, (_, cell) = self.query_cell(
                ops.concatenate([flat, read], axis=-1), [hidden, cell]
            )
            hidden = ops.cast(output, "float32") + flat
        return ops.reshape(hidden, (-1, queries, width))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "learned_scale": self.learned_scale,
            "full_context": self.full_context,
            "steps": self.steps,
        }
