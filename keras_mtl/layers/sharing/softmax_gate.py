"""The gate of a mixture of experts: a softmax of a linear layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.layers.sharing.gate import Gate
from keras_mtl.layers.stacked_dense import StackedDense

_LEFT_OUT = -1e30
"""The logit of an expert whose weight is 0."""


@keras.saving.register_keras_serializable("keras_mtl")
class SoftmaxGate(Gate):
    """Weighs experts for each task by a softmax of what a row makes of them.

    $$ g_t(x) = \\mathrm{softmax}(W_t x) $$

    With `top_k` only the k largest logits of a row and task are kept, and their
    softmax sums to one; at a tie the first expert is taken. All experts are computed
    nevertheless: what is sparse is the mixture, not the arithmetic.

    Args:
        top_k: Integer, how many experts of a row and task have a weight. Defaults to
            `None`, all.
        hidden_units: Tuple of integers, sizes of hidden layers (relu) before the
            softmax. Defaults to `()`.
        use_bias: Boolean, whether the layers have biases. Defaults to `False`.
        kernel_initializer: Initializer of the kernel of one task. Defaults to
            `"glorot_uniform"`.
        **kwargs: Arguments of `Gate`: `dropout`, `load_balance`, `seed`.

    Input shape:
        `(B, ..., D)`.

    Output shape:
        `(B, ..., T, E)`, sums to one over the experts.

    Raises:
        ValueError: If `top_k` is greater than the number of experts.

    Example:

    ```python
    gate = keras_mtl.layers.SoftmaxGate(top_k=2, num_experts=4, task_names=["a", "b"])
    weights = ops.convert_to_numpy(gate(np.ones((3, 8), "float32")))
    assert weights.shape == (3, 2, 4)
    assert ((weights > 0).sum(axis=-1) == 2).all()
    ```

    Reference:
        Ma et al., "Modeling Task Relationships in Multi-task Learning with
        Multi-gate Mixture-of-Experts", KDD 2018,
        https://doi.org/10.1145/3219819.3220007; Shazeer et al., "Outrageously Large
        Neural Networks", ICLR 2017, https://arxiv.org/abs/1701.06538 (top k)
    """

    def __init__(
        self,
        top_k: int | None = None,
        hidden_units: Sequence[int] = (),
        use_bias: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.top_k = None if top_k is None else check_count("top_k", top_k)
        if not isinstance(hidden_units, list | tuple):
            raise ValueError(
                "`hidden_units` must be a tuple, one size for each hidden layer. "
                f"Received: hidden_units={hidden_units!r}"
            )
        self.hidden_units = tuple(
            check_count("hidden_units", units) for units in hidden_units
        )
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.logits = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels `(T, D, E)`."""
        super().build(input_shape)
        if self.top_k is not None and self.top_k > self.num_experts:
            raise ValueError(
                f"`top_k` must be at most the number of experts, {self.num_experts}. "
                f"Received: top_k={self.top_k}"
            )
        self.logits = StackedDense(
            self.num_tasks,
            (*self.hidden_units, self.num_experts),
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="logits",
        )
        self.logits.build(input_shape)

    def compute_weights(
        self, inputs: Any, repeated: bool, training: bool, keep: Any
    ) -> Any:
        """Returns the softmax over the experts that are chosen and kept."""
        # In float32: half precision would round away differences of experts. What is
        # left out is so before the softmax, which no dominant logit then upsets.
        logits = self.logits.compute_stacks(inputs, repeated)
        logits = ops.cast(logits, "float32")
        if self.top_k is not None and self.top_k < self.num_experts:
            _, places = ops.top_k(logits, self.top_k)
            chosen = ops.sum(ops.one_hot(places, self.num_experts), axis=-2) > 0
            logits = ops.where(chosen, logits, _LEFT_OUT)
            keep = None if keep is None else ops.logical_and(keep, chosen)
        if keep is not None:
            some = ops.any(keep, axis=-1, keepdims=True)
            dropped = ops.logical_and(some, ops.logical_not(keep))
            logits = ops.where(dropped, _LEFT_OUT, logits)
        return ops.softmax(logits, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "top_k": self.top_k,
            "hidden_units": self.hidden_units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
