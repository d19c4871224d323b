"""The simple neural attentive learner."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.causal_blocks import CausalAttentionBlock, CausalDenseBlock
from keras_mtl.learners.feature_vectors import check_vectors, joined
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.support_sequence import in_front

_ATTENTION = ((64, 32), (256, 128), (512, 256))


@keras.saving.register_keras_serializable("keras_mtl")
class SNAIL(Learner):
    """Causal convolutions and attention over the support, and a query as its end.

    Attention (64 keys, 32 values), temporal convolution, attention (256, 128), temporal
    convolution, attention (512, 256), and a dense layer. A temporal convolution is a
    chain of gated causal convolutions of kernel 2 whose dilations 1, 2, 4, ... reach
    back over the whole sequence; the features of each join those before.

    The support is read once. Each query then is the last token of a sequence of its
    own, for which keys, values and one activation of every convolution are at hand: the
    same function as reading support and query together, for many queries at once.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. Defaults to `"gaussian"`.
        filters: Integer, features that a convolution adds. Defaults to 128.
        max_support: Integer, examples that the convolutions reach back over; attention
            reaches all. Defaults to `None`: five of each class, or 50.
        paper_dilation: Boolean, whether dilations are 2, 4, 8, ... as the paper's
            pseudo-code has it: then a convolution cannot reach odd distances. Defaults
            to `False`.
        width: Number that all sizes of attention are multiplied with. Defaults to 1.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.SNAIL(ways=5, filters=32)
    inputs = {
        "support_x": np.zeros((2, 5, 8), "float32"),
        "support_y": np.tile(np.arange(5), (2, 1)),
        "support_mask": np.ones((2, 5), "bool"),
        "query_x": np.zeros((2, 15, 8), "float32"),
    }
    assert learner(inputs).shape == (2, 15, 5)
    ```

    Reference:
        Mishra et al., "A Simple Neural Attentive Meta-Learner", ICLR 2018,
        https://arxiv.org/abs/1707.03141
    """

    needs_support = False

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        filters: int = 128,
        max_support: int | None = None,
        paper_dilation: bool = False,
        width: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.filters = check_count("filters", filters)
        if max_support is None:
            max_support = 50 if ways is None else 5 * ways
        self.max_support = check_count("max_support", max_support)
        self.paper_dilation = paper_dilation
        self.width = width
        dtype = self.dtype_policy
        length = self.max_support + 1
        first = 1 if paper_dilation else 0
        dilations = [2 ** (first + i) for i in range(math.ceil(math.log2(length)))]
        self.attentions = [
            CausalAttentionBlock(
                max(1, round(key * width)), max(1, round(value * width)), dtype=dtype
            )
            for key, value in _ATTENTION
        ]
        self.convolutions = [
            [CausalDenseBlock(filters, d, dtype=dtype) for d in dilations]
            for _ in range(len(_ATTENTION) - 1)
        ]
        self.head = keras.layers.Dense(self.output_size, dtype=dtype)

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns keys, values and activations that a next token needs."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        mask, x, labels = in_front(support_mask, support_x, labels)
        counts = ops.sum(ops.cast(mask, "int32"), axis=1)
        sequence = joined(x, labels, dtype=self.compute_dtype)
        attention, convolution = [], []
        for index, block in enumerate(self.attentions):
            sequence, memory = block.read(sequence)
            attention.append(memory)
            if index == len(self.convolutions):
                break
            for layer in self.convolutions[index]:
                sequence, before = layer.read(sequence, counts)
                convolution.append(before)
        return {
            "attention": attention,
            "convolution": convolution,
            "mask": mask,
            **seen,
        }

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        unknown = ops.zeros((*ops.shape(query_x)[:2], self.label_size), "float32")
        tokens = joined(query_x, unknown, dtype=self.compute_dtype)
        mask = ops.cast(phi["mask"], "bool")
        befores = iter(phi["convolution"])
        for index, block in enumerate(self.attentions):
            tokens = block.ask(tokens, phi["attention"][index], mask)
            if index < len(self.convolutions):
                for layer in self.convolutions[index]:
                    tokens = layer.ask(tokens, next(befores))
        return self.answer(self.head(tokens), phi)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "max_support": self.max_support,
            "paper_dilation": self.paper_dilation,
            "width": self.width,
        }
