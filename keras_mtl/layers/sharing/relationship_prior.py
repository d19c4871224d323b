"""Heads with a prior whose covariance says how tasks are related."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_choice, check_number
from keras_mtl.layers.conditioning.multi_head import MultiHead

PRIORS = ("matrix", "tensor")


@keras.saving.register_keras_serializable("keras_mtl")
class RelationshipPrior(MultiHead):
    """Heads of one shape under a normal prior that learns their relationship.

    With the kernels of one layer of all heads, \\( \\mathcal W \\in R^{T \\times D_1
    \\times D_2} \\), it adds for every layer the loss

    $$ \\frac{\\lambda}{2} \\mathrm{vec}(\\mathcal W)^\\top
       (\\Sigma_T \\otimes \\Sigma_1 \\otimes \\Sigma_2)^{-1}
       \\mathrm{vec}(\\mathcal W) $$

    and in each training step moves the covariances towards those that fit the kernels
    best (the flip-flop algorithm of the tensor normal distribution):

    $$ \\Sigma_T \\leftarrow \\frac{1}{D_1 D_2} W_{(T)}
       (\\Sigma_1 \\otimes \\Sigma_2)^{-1} W_{(T)}^\\top + \\epsilon I $$

    and the same for the other axes. So the kernels of related tasks are drawn to each
    other, with their sign: those of opposed tasks to opposite values. The matrix
    normal prior has \\( \\Sigma_1 = \\Sigma_2 = I \\) and costs next to nothing; the
    tensor normal one needs inverses of the size of the layer.

    Args:
        units: Integer, the size of each head's output.
        task_names: List of T strings, the keys of the outputs.
        weight: Float, the factor of the loss. Defaults to 1e-3.
        prior: `"matrix"`, a covariance of tasks alone, or `"tensor"`, one for each
            axis. Defaults to `"matrix"`.
        momentum: Float in [0, 1), how much of a covariance stays in a step. Defaults
            to 0.9.
        epsilon: Float, what is added to the diagonal of the covariances. Defaults to
            1e-3.
        **kwargs: Arguments of `MultiHead`.

    Input shape:
        `(B, ..., D)`.

    Output shape:
        Dict of `(B, ..., units)`, one entry for each task name.

    Raises:
        ValueError: If `prior` is unknown, or a number is out of range.

    Example:

    ```python
    inputs = keras.Input((16,))
    prior = keras_mtl.layers.RelationshipPrior(1, ["a", "b"], hidden_units=(8,))
    model = keras_mtl.MultiTaskModel(inputs, prior(inputs))
    model.compile("adam", loss="mse")
    y = {"a": np.ones(32), "b": -np.ones(32)}
    model.fit(np.ones((32, 16)), y, verbose=0)
    correlation = prior.task_correlation()
    assert correlation.shape == (2, 2)
    ```

    Reference:
        Long et al., "Learning Multiple Tasks with Multilinear Relationship Networks"
        (deep relationship networks), NeurIPS 2017, https://arxiv.org/abs/1506.02117
    """

    def __init__(
        self,
        units: int,
        task_names: Any,
        *args: Any,
        weight: float = 1e-3,
        prior: str = "matrix",
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, task_names, *args, **kwargs)
        self.weight = check_number("weight", weight, at_least=0)
        self.prior = check_choice("prior", prior, PRIORS)
        self.momentum = check_number("momentum", momentum, at_least=0)
        if self.momentum >= 1:
            raise ValueError(
                f"`momentum` must be less than 1. Received: momentum={momentum}"
            )
        self.epsilon = check_number("epsilon", epsilon, above=0)
        self.covariances = []

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernels, and for each a covariance of one axis or of all."""
        super().build(input_shape)
        for depth, kernel in enumerate(self.kernels):
            axes = kernel.shape if self.prior == "tensor" else kernel.shape[:1]
            self.covariances.append(
                [
                    self.add_weight(
                        name=f"covariance_{depth}_{axis}",
                        shape=(size, size),
                        initializer=keras.initializers.Identity(),
                        trainable=False,
                        dtype="float32",
                        autocast=False,
                        aggregation="mean",
                    )
                    for axis, size in enumerate(axes)
                ]
            )

    def call(
        self,
        inputs: Any,
        repeated: bool = False,
        mixture: Any = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Returns the dict of the heads' outputs, and adds the loss of the prior."""
        for kernel, covariances in zip(self.kernels, self.covariances, strict=True):
            kernel = ops.cast(kernel, "float32")
            whitened = kernel
            for axis, covariance in enumerate(covariances):
                whitened = self._solve(covariance, whitened, axis)
            self.add_loss(0.5 * self.weight * ops.sum(kernel * whitened))
            if training:
                self._fit(ops.stop_gradient(kernel), covariances)
        return super().call(inputs, repeated=repeated, mixture=mixture)

    def task_covariance(self, depth: int = -1) -> np.ndarray:
        """Returns the covariance of the tasks `(T, T)` in a layer of the heads.

        Args:
            depth: Which layer. Defaults to the last.
        """
        return ops.convert_to_numpy(self.covariances[depth][0])

    def task_correlation(self, depth: int = -1) -> np.ndarray:
        """Returns `task_covariance` as correlations, between -1 and 1.

        Args:
            depth: Which layer. Defaults to the last.
        """
        covariance = self.task_covariance(depth)
        scale = np.sqrt(np.diag(covariance))
        return covariance / np.outer(scale, scale)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "weight": self.weight,
            "prior": self.prior,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }

    def _fit(self, kernel: Any, covariances: list[Any]) -> None:
        """Moves the covariances towards those of the kernel, one axis after another."""
        for axis, covariance in enumerate(covariances):
            whitened = kernel
            for other, fixed in enumerate(covariances):
                if other != axis:
                    whitened = self._solve(fixed, whitened, other)
            size = kernel.shape[axis]
            rows = ops.reshape(ops.moveaxis(kernel, axis, 0), (size, -1))
            others = ops.reshape(ops.moveaxis(whitened, axis, 0), (size, -1))
            found = ops.matmul(rows, ops.transpose(others)) / others.shape[1]
            found = 0.5 * (found + ops.transpose(found)) + self.epsilon * ops.eye(size)
            if axis > 0:
                # The scale of all is that of the tasks: the others keep their trace.
                found = found * (size / ops.trace(found))
            kept = ops.copy(covariance)
            covariance.assign(self.momentum * kept + (1 - self.momentum) * found)

    def _solve(self, covariance: Any, tensor: Any, axis: int) -> Any:
        """Multiplies an axis of a tensor with the inverse of a covariance."""
        moved = ops.moveaxis(tensor, axis, 0)
        flat = ops.reshape(moved, (moved.shape[0], -1))
        # A copy: on PyTorch the value itself would change under the gradient.
        matrix = ops.stop_gradient(ops.copy(covariance))
        solved = ops.reshape(ops.solve(matrix, flat), moved.shape)
        return ops.moveaxis(solved, 0, axis)
