"""Deep sets."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.class_means import class_means
from keras_mtl.learners.context_decoder import ContextDecoder
from keras_mtl.learners.feature_vectors import (
    check_vectors,
    joined,
    multi_layer_perceptron,
)
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.masked_pooling import masked_max, masked_mean


@keras.saving.register_keras_serializable("keras_mtl")
class DeepSet(Learner):
    """Pools what a network makes of each example, by mean and maximum.

    $$ \\phi = \\rho\\Big(\\Big[\\text{mean}_i \\psi([x_i; y_i]);
       \\max_i \\psi([x_i; y_i])\\Big]\\Big) $$

    For classification the pools are by class, and each $\\phi_k$ is also told the mean
    over all classes: names of classes have no meaning.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. Defaults to `"gaussian"`.
        width: Integer, units of every layer. Defaults to 128.
        depth: Integer, layers of ψ, and hidden layers of the network that answers.
            Defaults to 3.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.DeepSet(ways=3)
    phi = learner.adapt(np.zeros((1, 3, 8)), np.array([[0, 1, 2]]), np.ones((1, 3)))
    assert phi["context"].shape == (1, 3, 128)
    ```

    Reference:
        Zaheer et al., "Deep Sets", NeurIPS 2017, https://arxiv.org/abs/1703.06114
    """

    ignores_order = True
    permutes_labels = True
    needs_support = False

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        width: int = 128,
        depth: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.width = check_count("width", width)
        self.depth = check_count("depth", depth)
        dtype = self.dtype_policy
        self.each = multi_layer_perceptron([width] * depth, dtype=dtype)
        self.pooled = multi_layer_perceptron([width, width], dtype=dtype)
        self.decoder = ContextDecoder(
            width,
            depth,
            1 if ways else self.output_size,
            compare=bool(ways),
            dtype=dtype,
        )

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the context `(B, 1, width)`, or one a class `(B, N, width)`."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        if self.ways:
            each = self.each(support_x)
            means = class_means(labels, each)
            every = masked_mean(each, support_mask)[:, None]
            every = ops.broadcast_to(every, ops.shape(means))
            pools = [means, masked_max(each, labels), every]
        else:
            each = self.each(joined(support_x, labels))
            pools = [
                pool(each, support_mask)[:, None] for pool in (masked_mean, masked_max)
            ]
        return {"context": self.pooled(ops.concatenate(pools, axis=-1)), **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        raw = self.decoder(query_x, phi["context"])
        return self.answer(raw[..., 0] if self.ways else raw[:, :, 0], phi)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "width": self.width, "depth": self.depth}
