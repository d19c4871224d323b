"""Prototypical networks."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice
from keras_mtl.learners.class_means import class_means
from keras_mtl.learners.cosine import unit_vectors
from keras_mtl.learners.feature_vectors import check_vectors
from keras_mtl.learners.learner import Learner


@keras.saving.register_keras_serializable("keras_mtl")
class PrototypicalNetwork(Learner):
    """Classifies a query by its distance to the mean of each class.

    $$ c_k = \\frac{1}{|S_k|} \\sum_{i \\in S_k} x_i, \\qquad
       p(k \\mid x) \\propto \\exp(-\\lVert x - c_k \\rVert^2) $$

    Of features x that the encoder of `MetaModel` makes: all that is learned is there
    (and the temperature, for `"cosine"`). phi is one vector for each class. The
    distance is the *squared* Euclidean one, as in the paper.

    Args:
        ways: Integer N, the number of classes of a task.
        distance: `"squared_euclidean"`, or `"cosine"`: then
            $p \\propto \\exp(s \\cos(x, c_k))$ with a learned s, which starts at 10.
            Defaults to `"squared_euclidean"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.PrototypicalNetwork(ways=2)
    phi = learner.adapt(np.array([[[0.0], [1.0]]]), np.array([[0, 1]]), np.ones((1, 2)))
    learner.predict(phi, np.array([[[0.2]]]))  # class 0: 0.65
    ```

    Reference:
        Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning",
        NeurIPS 2017, https://arxiv.org/abs/1703.05175
    """

    ignores_order = True
    permutes_labels = True

    def __init__(
        self, ways: int, distance: str = "squared_euclidean", **kwargs: Any
    ) -> None:
        super().__init__(ways=ways, **kwargs)
        self.distance = check_choice(
            "distance", distance, ("squared_euclidean", "cosine")
        )
        self.log_scale = None
        if distance == "cosine":
            self.log_scale = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(2.302585),
                name="log_scale",
            )

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the prototypes `(B, N, D)`."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        return {"prototypes": class_means(labels, support_x), **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns probabilities `(B, Q, N)`."""
        check_vectors(query_x, "query_x")
        prototypes = phi["prototypes"]
        query_x = ops.cast(query_x, "float32")
        if self.distance == "cosine":
            prototypes, query_x = unit_vectors(prototypes), unit_vectors(query_x)
        products = ops.matmul(query_x, ops.transpose(prototypes, (0, 2, 1)))
        if self.distance == "cosine":
            return self.answer(ops.exp(self.log_scale) * products, phi)
        # The norm of the query is the same for all classes.
        norms = ops.sum(prototypes**2, axis=-1)[:, None, :]
        return self.answer(2 * products - norms, phi)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "distance": self.distance}
