"""Relation networks."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_count
from keras_mtl.learners.class_means import class_means
from keras_mtl.learners.feature_vectors import check_vectors, multi_layer_perceptron
from keras_mtl.learners.learner import Learner


@keras.saving.register_keras_serializable("keras_mtl")
class RelationNetwork(Learner):
    """Learns how alike a query and a class are, in place of a distance.

    $$ r_k = g([c_k; x]), \\qquad c_k = \\frac{1}{|S_k|} \\sum_{i \\in S_k} x_i $$

    with a network g of dense layers on features that the encoder makes. (The paper sums
    the examples of a class, which ties g to a number of shots, and has convolutions in
    g.)

    Args:
        ways: Integer N, the number of classes of a task.
        hidden: Integer, units of the hidden layers of g. Defaults to 128.
        depth: Integer, number of hidden layers. Defaults to 2.
        scores: `"softmax"`: relations are logits. `"sigmoid"`: each is a score
            between 0 and 1 of its own, as in the paper, to be trained with
            `loss="mse"`; they do not sum to 1. Defaults to `"softmax"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.RelationNetwork(ways=2)
    phi = learner.adapt(np.zeros((1, 2, 8)), np.array([[0, 1]]), np.ones((1, 2)))
    assert learner.predict(phi, np.zeros((1, 5, 8))).shape == (1, 5, 2)
    ```

    Reference:
        Sung et al., "Learning to Compare: Relation Network for Few-Shot Learning",
        CVPR 2018, https://arxiv.org/abs/1711.06025
    """

    ignores_order = True
    permutes_labels = True

    def __init__(
        self,
        ways: int,
        hidden: int = 128,
        depth: int = 2,
        scores: str = "softmax",
        **kwargs: Any,
    ) -> None:
        super().__init__(ways=ways, **kwargs)
        self.hidden = check_count("hidden", hidden)
        self.depth = check_count("depth", depth)
        self.scores = check_choice("scores", scores, ("softmax", "sigmoid"))
        dtype = self.dtype_policy
        # The first layer of a network on [c; x], in two parts: each is computed once.
        self.of_class = keras.layers.Dense(hidden, use_bias=False, dtype=dtype)
        self.of_query = keras.layers.Dense(hidden, dtype=dtype)
        # A bias would be the same for the logits of all classes, and change nothing.
        self.rest = multi_layer_perceptron(
            [hidden] * (depth - 1) + [1], dtype=dtype, last_bias=scores == "sigmoid"
        )

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns what g needs of each class, `(B, N, hidden)`."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        return {"classes": self.of_class(class_means(labels, support_x)), **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns probabilities, or scores, `(B, Q, N)`."""
        check_vectors(query_x, "query_x")
        classes = ops.cast(phi["classes"], self.compute_dtype)
        pairs = self.of_query(query_x)[:, :, None] + classes[:, None]  # B, Q, N, h
        relations = self.rest(ops.relu(pairs))[..., 0]
        if self.scores == "softmax":
            return self.answer(relations, phi)
        there = phi["seen"]
        relations = ops.cast(relations, "float32")[..., : ops.shape(there)[-1]]
        return ops.sigmoid(relations) * there[:, None]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "depth": self.depth,
            "scores": self.scores,
        }
