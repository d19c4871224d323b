"""A transformer that learns in its context."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.learners.feature_vectors import check_vectors, multi_layer_perceptron
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.support_attention import SupportAttentionBlock


@keras.saving.register_keras_serializable("keras_mtl")
class InContextTransformer(Learner):
    """A transformer whose tokens are the examples of a support, and queries.

    A token of the support is the sum of what is made of its features and of its label,
    a token of a query what is made of its features: so a query is like the examples
    that it is to be compared with. Tokens of the support attend to each other, a query
    attends to the support and to itself; there are no positions, so the support is a
    set. phi holds keys and values of each block: a query costs as much as the support
    is long, and the support is read once however many queries follow.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted: `"gaussian"`, a `Bar`
            distribution, or `None`. Defaults to `"gaussian"`.
        width: Integer, features of a token. Defaults to 64.
        depth: Integer, number of blocks. Defaults to 3.
        heads: Integer, attention heads; it divides the width. Defaults to 4.
        hidden: Integer, units of the dense layer of a block. Defaults to `None`,
            twice the width.
        dropout: Number, rate of dropout in each block. Defaults to 0.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range, or the heads do not divide the
            width.

    Example:

    ```python
    learner = keras_mtl.learners.InContextTransformer(ways=5)
    inputs = {
        "support_x": np.zeros((2, 5, 8), "float32"),
        "support_y": np.tile(np.arange(5), (2, 1)),
        "support_mask": np.ones((2, 5), "bool"),
        "query_x": np.zeros((2, 15, 8), "float32"),
    }
    assert learner(inputs).shape == (2, 15, 5)
    ```

    Reference:
        Müller et al., "Transformers Can Do Bayesian Inference", ICLR 2022,
        https://arxiv.org/abs/2112.10510; Nguyen and Grover, "Transformer Neural
        Processes", ICML 2022, https://arxiv.org/abs/2207.04179
    """

    ignores_order = True
    needs_support = False

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.width = check_count("width", width)
        self.depth = check_count("depth", depth)
        self.heads = check_count("heads", heads)
        self.hidden = hidden
        self.dropout = check_number("dropout", dropout, at_least=0, at_most=1)
        if width % heads:
            raise ValueError(
                f"`heads` must divide `width`. Received: heads={heads}, width={width}"
            )
        hidden = 2 * width if hidden is None else check_count("hidden", hidden)
        dtype = self.dtype_policy
        self.embed_x = multi_layer_perceptron([hidden, width], "gelu", dtype)
        self.embed_y = keras.layers.Dense(width, dtype=dtype)
        self.blocks = [
            SupportAttentionBlock(width, heads, hidden, dropout, dtype=dtype)
            for _ in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype)
        self.head = keras.layers.Dense(self.output_size, dtype=dtype, name="head")

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns keys and values of each block, `(B, S, heads, width / heads)`."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        mask = ops.cast(support_mask, "bool")
        tokens = self.embed_x(support_x) + self.embed_y(labels)
        memories = []
        for block in self.blocks[:-1]:
            tokens, memory = block.read(tokens, mask)
            memories.append(memory)
        memories.append(self.blocks[-1].remember(tokens))
        return {"blocks": memories, "mask": mask, **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        tokens = self.embed_x(query_x)
        mask = ops.cast(phi["mask"], "bool")
        for block, memory in zip(self.blocks, phi["blocks"], strict=True):
            tokens = block.ask(tokens, memory, mask)
        return self.answer(self.head(self.norm(tokens)), phi)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "hidden": self.hidden,
            "dropout": self.dropout,
        }
