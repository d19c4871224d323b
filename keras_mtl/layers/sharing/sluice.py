"""Networks of all tasks that exchange parts of every layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.independent_initializers import independent_initializers
from keras_mtl.layers.sharing.cross_stitch import near_identity
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import same_shape


@keras.saving.register_keras_serializable("keras_mtl")
class Sluice(SharingLayer):
    """A dense network for each task, with learned sharing at three places.

    In layer l every task t has S subspaces, dense layers of their own, whose outputs
    are combined over tasks and subspaces (i and j run over all T S of them); what a
    task's head reads is a mixture of all layers of the task:

    $$ \\tilde h^l_i = \\sum_j \\alpha^l_{ij} h^l_j, \\qquad
       h^{l+1}_i = \\phi(\\tilde h^l_i W^{l+1}_i + b^{l+1}_i), \\qquad
       y_t = \\sum_l \\beta_{tl} [\\tilde h^l_{t1}; \\dots; \\tilde h^l_{tS}] $$

    Subspaces of one task are kept apart by a penalty, so that one can be shared and
    another a task's own:

    $$ \\lambda \\sum_{l,t} \\sum_{s < r} \\| W_{ts}^{l\\,\\top} W^l_{tr} \\|_F^2 $$

    With one subspace it is a `CrossStitch` network with a mixture of layers.

    Args:
        task_names: List of T strings.
        units: Integer, the size of a layer of one task, a multiple of `subspaces`.
        num_layers: Integer, the number of layers. Defaults to 2.
        subspaces: Integer, S. Defaults to 2.
        orthogonality: Float, the factor of the penalty. Defaults to 0.1.
        own: Float in (0, 1], the initial weight in alpha of a subspace itself; the
            others have the rest in equal parts. Defaults to 0.9.
        activation: Activation of the layers. Defaults to `"relu"`.
        use_bias: Boolean, whether they have biases. Defaults to `True`.
        kernel_initializer: Initializer of the kernel of one subspace. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ..., D)`, or a dict or list with one of the same shape for each
        task.

    Output shape:
        `(B, ..., units)` for each task: a dict, or a list if the input is one.

    Raises:
        ValueError: If a size is not positive, or `units` no multiple of `subspaces`.

    Example:

    ```python
    inputs = keras.Input((64,))
    h = keras_mtl.layers.Sluice(["click", "like"], units=32)(inputs)
    outputs = {t: keras.layers.Dense(1, "sigmoid", name=t)(x) for t, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    assert model(np.ones((4, 64)))["like"].shape == (4, 1)
    ```

    Reference:
        Ruder et al., "Latent Multi-task Architecture Learning" (sluice networks),
        AAAI 2019, https://arxiv.org/abs/1705.08142
    """

    def __init__(
        self,
        task_names: Sequence[str],
        units: int,
        num_layers: int = 2,
        subspaces: int = 2,
        orthogonality: float = 0.1,
        own: float = 0.9,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        self.units = check_count("units", units)
        self.subspaces = check_count("subspaces", subspaces)
        if self.units % self.subspaces:
            raise ValueError(
                "`units` must be a multiple of `subspaces`. "
                f"Received: units={units}, subspaces={subspaces}"
            )
        self.num_layers = check_count("num_layers", num_layers)
        self.orthogonality = check_number("orthogonality", orthogonality, at_least=0)
        self.own = check_number("own", own, above=0, at_most=1)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dense = [
            StackedDense(
                self.num_tasks * self.subspaces,
                (self.units // self.subspaces,),
                activation,
                use_bias=use_bias,
                kernel_initializer=initializer,
                bias_initializer=bias_initializer,
                kernel_regularizer=kernel_regularizer,
                dtype=self.dtype_policy,
                name=f"{self.name}_dense_{depth}",
            )
            for depth, initializer in enumerate(
                independent_initializers(self.kernel_initializer, self.num_layers)
            )
        ]
        self.alphas = []
        self.beta = None

    def build(self, input_shape: Any) -> None:
        """Creates the layers, alpha `(T S, T S)` for each, and beta `(T, L)`."""
        shape = same_shape(self.structure_of(input_shape), input_shape)
        subspaces = self.num_tasks * self.subspaces
        for depth, dense in enumerate(self.dense):
            size = shape[-1] if depth == 0 else self.units // self.subspaces
            if not dense.built:
                dense.build((*shape[:1], size))
            alpha = self.add_weight(
                name=f"alpha_{depth}",
                shape=(subspaces, subspaces),
                initializer=keras.initializers.Constant(
                    near_identity(subspaces, self.own)
                ),
            )
            self.alphas.append(alpha)
        self.beta = self.add_weight(
            name="beta",
            shape=(self.num_tasks, self.num_layers),
            initializer=keras.initializers.Constant(1 / self.num_layers),
        )

    def call(self, inputs: Any) -> Any:
        """Returns the mixture of the layers of each task."""
        structure = self.structure_of(inputs)
        x = inputs if structure.is_one else ops.stack(structure.values(inputs))
        repeated = not structure.is_one
        beta = ops.cast(self.beta, self.compute_dtype)
        total = 0.0
        for depth, (dense, alpha) in enumerate(
            zip(self.dense, self.alphas, strict=True)
        ):
            h = ops.moveaxis(dense(x, repeated=repeated), -2, 0)  # (T S, B, ..., n)
            shape = ops.shape(h)
            alpha = ops.cast(alpha, self.compute_dtype)
            x = ops.matmul(alpha, ops.reshape(h, (shape[0], -1)))
            x, repeated = ops.reshape(x, shape), True
            by_task = ops.reshape(x, (self.num_tasks, -1))
            total = total + ops.expand_dims(beta[:, depth], -1) * by_task
            if self.orthogonality:
                self.add_loss(self.orthogonality * self._overlap(dense.kernels[0]))
        mixed = ops.reshape(total, (self.num_tasks, self.subspaces, *shape[1:]))
        mixed = ops.moveaxis(mixed, 1, -2)
        mixed = ops.reshape(mixed, (self.num_tasks, *shape[1:-1], self.units))
        return structure.nest(ops.unstack(mixed, self.num_tasks))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each task that of its input, with `units` as last axis."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape)
        return structure.nest([(*shape[:-1], self.units)] * self.num_tasks)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        dense = self.dense[0].get_dense_config()
        del dense["hidden_activation"]
        return {
            **super().get_config(),
            **dense,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "units": self.units,
            "num_layers": self.num_layers,
            "subspaces": self.subspaces,
            "orthogonality": self.orthogonality,
            "own": self.own,
        }

    def _overlap(self, kernel: Any) -> Any:
        """Returns the sum of squared products of subspaces of the same task."""
        kernel = ops.cast(kernel, "float32")
        _, size_in, size_out = kernel.shape
        kernel = ops.reshape(
            kernel, (self.num_tasks, self.subspaces, size_in, size_out)
        )
        side_by_side = ops.reshape(
            ops.transpose(kernel, (0, 2, 1, 3)), (self.num_tasks, size_in, -1)
        )
        products = ops.matmul(ops.transpose(side_by_side, (0, 2, 1)), side_by_side)
        products = ops.reshape(
            products,
            (self.num_tasks, self.subspaces, size_out, self.subspaces, size_out),
        )
        squares = ops.sum(products * products, axis=(0, 2, 4))
        return (ops.sum(squares) - ops.trace(squares)) / 2
