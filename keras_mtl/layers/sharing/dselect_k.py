"""A gate that ends with k experts for each task."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.independent_initializers import StackedInitializer
from keras_mtl.layers.sharing.gate import Gate


@keras.saving.register_keras_serializable("keras_mtl")
class DSelectK(Gate):
    """Selects k of E experts for each task, by a choice that can be differentiated.

    $$ g = \\sum_{i=1}^{k} \\mathrm{softmax}(w)_i \\, r(z^{(i)}), \\qquad
       r(z)_e = \\prod_{j=1}^{m} \\begin{cases} S(z_j) & \\text{bit j of e is 1} \\\\
       1 - S(z_j) & \\text{else} \\end{cases} $$

    with \\( m = \\lceil \\log_2 E \\rceil \\) and the smooth step
    \\( S(t) = -2t^3/\\gamma^3 + 3t/(2\\gamma) + 1/2 \\), which is 0 for
    \\( t \\le -\\gamma/2 \\) and 1 for \\( t \\ge \\gamma/2 \\). So r starts close to
    equal weights and becomes exactly one-hot as z moves away from 0. Each task has k
    selectors; two may choose the same expert.

    If E is no power of two some of the codes belong to no expert: the weights of a
    task sum to less than one as long as a selector is between, and a penalty,
    \\( \\sum_i 1 / \\sum_e r(z^{(i)})_e \\), keeps selectors away from those.

    Args:
        k: Integer, the number of experts to select for each task.
        by_example: Boolean, whether z and w are linear in the input, so that each row
            makes a choice of its own, or the same for all rows. Defaults to `False`.
        gamma: Float, the width of the smooth step. Defaults to 1.
        entropy_weight: Float, the factor of a loss, the sum of the entropies of all
            r, that pushes selectors to a choice. Defaults to 1e-6.
        **kwargs: Arguments of `Gate`: `dropout`, `load_balance`, `seed`.

    Input shape:
        `(B, ..., D)`.

    Output shape:
        `(B, ..., T, E)`.

    Raises:
        ValueError: If `k` is greater than the number of experts, or an argument is
            out of range.

    Example:

    ```python
    gate = keras_mtl.layers.DSelectK(k=2)
    layer = keras_mtl.layers.MixtureOfExperts(8, ["a", "b"], units=16, gate=gate)
    outputs = layer(np.ones((4, 10), "float32"))
    assert sorted(outputs) == ["a", "b"]
    assert gate.selected_experts().shape == (2, 8)
    ```

    Reference:
        Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of
        Experts with Applications to Multi-Task Learning", NeurIPS 2021,
        https://arxiv.org/abs/2106.03760
    """

    sums_to_one = False
    """Where a code belongs to no expert, less is left."""

    def __init__(
        self,
        k: int,
        by_example: bool = False,
        gamma: float = 1.0,
        entropy_weight: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.k = check_count("k", k)
        self.by_example = by_example
        self.gamma = check_number("gamma", gamma, above=0)
        self.entropy_weight = check_number("entropy_weight", entropy_weight, at_least=0)
        self.selectors = None
        self.mixture = None

    @property
    def num_bits(self) -> int:
        """Number of bits of the code of an expert, m."""
        return math.ceil(math.log2(self.num_experts))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates z and w, or the kernels that make them of a row."""
        super().build(input_shape)
        if self.k > self.num_experts:
            raise ValueError(
                f"`k` must be at most the number of experts, {self.num_experts}. "
                f"Received: k={self.k}"
            )
        features = (input_shape[-1],) if self.by_example else ()
        if None in features:
            raise ValueError(
                "The last axis of the input must be known. "
                f"Received: input of shape {tuple(input_shape)}"
            )
        around_zero = StackedInitializer(
            keras.initializers.RandomUniform(-self.gamma / 100, self.gamma / 100)
        )
        self.selectors = self.add_weight(
            name="selectors",
            shape=(self.num_tasks, *features, self.k * self.num_bits),
            initializer=around_zero,
            autocast=False,
        )
        self.mixture = self.add_weight(
            name="mixture",
            shape=(self.num_tasks, *features, self.k),
            initializer=StackedInitializer(
                keras.initializers.RandomUniform(-0.05, 0.05)
            ),
            autocast=False,
        )

    def compute_weights(
        self, inputs: Any, repeated: bool, training: bool, keep: Any
    ) -> Any:
        """Returns the weights of the experts, and adds the penalties."""
        z, w = (
            self._of_rows(inputs, variable, repeated)
            for variable in (self.selectors, self.mixture)
        )
        choices = self._choices(z)
        if training:
            self._add_penalties(choices)
        weights = self._mixed(w, choices)
        if not self.by_example:
            rows = ops.shape(inputs)[1 if repeated else 0 : -1]
            shape = (*rows, self.num_tasks, self.num_experts)
            weights = ops.broadcast_to(weights, shape)
        return weights if keep is None else _kept(weights, keep)

    def selected_experts(self) -> np.ndarray:
        """Returns the weights `(T, E)` that hold for all rows.

        Raises:
            ValueError: If each row makes a choice of its own.
        """
        if self.by_example:
            raise ValueError(
                "With `by_example` each row makes a choice of its own: call the gate. "
                "Received: by_example=True"
            )
        choices = self._choices(ops.cast(self.selectors, "float32"))
        return ops.convert_to_numpy(
            self._mixed(ops.cast(self.mixture, "float32"), choices)
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "k": self.k,
            "by_example": self.by_example,
            "gamma": self.gamma,
            "entropy_weight": self.entropy_weight,
        }

    def _of_rows(self, inputs: Any, variable: Any, repeated: bool) -> Any:
        """Returns what a variable says, `(T, n)` or for each row `(..., T, n)`."""
        value = ops.cast(variable, "float32")
        if not self.by_example:
            return value
        x = ops.cast(inputs, "float32")
        if repeated:
            rows = ops.shape(x)[1:-1]
            x = ops.reshape(x, (self.num_tasks, -1, x.shape[-1]))
            found = ops.transpose(ops.matmul(x, value), (1, 0, 2))
        else:
            rows = ops.shape(x)[:-1]
            x = ops.reshape(x, (-1, x.shape[-1]))
            wide = ops.reshape(ops.transpose(value, (1, 0, 2)), (x.shape[-1], -1))
            found = ops.matmul(x, wide)
        return ops.reshape(found, (*rows, self.num_tasks, value.shape[-1]))

    def _mixed(self, w: Any, choices: Any) -> Any:
        """Returns the mixture of the choices of all selectors, `(..., T, E)`."""
        mixture = ops.expand_dims(ops.softmax(w, axis=-1), -1)
        return ops.sum(mixture * choices, axis=-2)

    def _choices(self, z: Any) -> Any:
        """Returns r `(..., T, k, E)` of the selectors `(..., T, k * m)`."""
        leading = ops.shape(z)[:-1]
        if self.num_bits == 0:
            return ops.ones((*leading, self.k, 1), "float32")
        t = ops.clip(z / self.gamma, -0.5, 0.5)
        step = ops.reshape(t * (1.5 - 2 * t * t) + 0.5, (*leading, self.k, 1, -1))
        codes = np.arange(self.num_experts)[:, None] >> np.arange(self.num_bits) & 1
        bits = ops.convert_to_tensor(codes, "float32")
        return ops.prod(bits * step + (1 - bits) * (1 - step), axis=-1)

    def _add_penalties(self, choices: Any) -> None:
        rows = ops.reshape(choices, (-1, self.num_tasks * self.k, self.num_experts))
        if self.entropy_weight:
            logarithms = ops.log(ops.maximum(rows, 1e-30))
            entropies = -ops.sum(rows * logarithms, axis=(1, 2))
            self.add_loss(self.entropy_weight * ops.mean(entropies))
        if 2**self.num_bits != self.num_experts:
            reached = ops.maximum(ops.sum(rows, axis=-1), 1e-6)
            self.add_loss(ops.mean(ops.sum(1 / reached, axis=-1)))


def _kept(weights: Any, keep: Any) -> Any:
    """Returns the weights that are kept, scaled to the sum of all.

    Where what is kept is none, or a millionth of the row, the row stays as it is.
    """
    kept = weights * ops.cast(keep, weights.dtype)
    total = ops.sum(weights, axis=-1, keepdims=True)
    left = ops.sum(kept, axis=-1, keepdims=True)
    some = left > 1e-6 * total
    scaled = kept * (total / ops.where(some, left, ops.ones_like(left)))
    return ops.where(some, scaled, weights)
