"""Conditional neural processes."""

from typing import Any

import keras

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.class_means import class_means
from keras_mtl.learners.context_decoder import ContextDecoder
from keras_mtl.learners.feature_vectors import (
    check_vectors,
    joined,
    multi_layer_perceptron,
)
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.masked_pooling import masked_mean


@keras.saving.register_keras_serializable("keras_mtl")
class ConditionalNeuralProcess(Learner):
    """Averages what a network makes of each example, and answers with the average.

    $$ r = \\frac{1}{|S|} \\sum_i h([x_i; y_i]), \\qquad \\hat y = g(x, r) $$

    phi is r alone, whatever the size of the support. For classification there is an
    average $r_k$ of h(x_i) for each class, and the logit of class k is $g(x, r_k)$,
    with the same g for all: names of classes have no meaning.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. Defaults to `"gaussian"`.
        width: Integer, units of every layer, and the size of r. Defaults to 128.
        encoder_depth: Integer, layers of h. Defaults to 4.
        decoder_depth: Integer, hidden layers of g. Defaults to 3.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.ConditionalNeuralProcess(output_dim=1)
    inputs = {
        "support_x": np.zeros((2, 10, 1), "float32"),
        "support_y": np.zeros((2, 10, 1), "float32"),
        "support_mask": np.ones((2, 10), "bool"),
        "query_x": np.zeros((2, 7, 1), "float32"),
    }
    assert learner(inputs).shape == (2, 7, 1, 2)  # mean and scale
    ```

    Reference:
        Garnelo et al., "Conditional Neural Processes", ICML 2018,
        https://arxiv.org/abs/1807.01613
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
        encoder_depth: int = 4,
        decoder_depth: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.width = check_count("width", width)
        self.encoder_depth = check_count("encoder_depth", encoder_depth)
        self.decoder_depth = check_count("decoder_depth", decoder_depth)
        dtype = self.dtype_policy
        self.encoder = multi_layer_perceptron([width] * encoder_depth, dtype=dtype)
        self.decoder = ContextDecoder(
            width,
            decoder_depth,
            1 if ways else self.output_size,
            compare=bool(ways),
            dtype=dtype,
        )

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the average `(B, 1, width)`, or one a class `(B, N, width)`."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        if self.ways:
            context = class_means(labels, self.encoder(support_x))
        else:
            each = self.encoder(joined(support_x, labels))
            context = masked_mean(each, support_mask)[:, None]
        return {"context": context, **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        raw = self.decoder(query_x, phi["context"])
        return self.answer(raw[..., 0] if self.ways else raw[:, :, 0], phi)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "width": self.width,
            "encoder_depth": self.encoder_depth,
            "decoder_depth": self.decoder_depth,
        }
