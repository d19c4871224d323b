"""Low-rank updates of a shared dense layer, one for each task."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import same_shape


@keras.saving.register_keras_serializable("keras_mtl")
class LowRankAdapter(SharingLayer):
    """A shared dense layer with a low-rank update of each task's own (LoRA).

    $$ y_t = \\phi\\left( x_t W + b + \\frac{\\alpha}{r} \\, x_t A_t B_t \\right) $$

    `B` starts at zero, so all tasks start with the shared layer. With the shared layer
    frozen (`layer.trainable = False`), as one that has been trained before, a task
    costs `r (n + m)` parameters in place of `n m`, and tasks cannot disturb each
    other. Put one in the place of each dense layer of a trunk.

    Args:
        layer: A `keras.layers.Dense`, which all tasks share.
        task_names: List of T strings.
        rank: Integer, r. Defaults to 4.
        alpha: Float, the scale of the update. Defaults to `None`, that of `rank`.
        kernel_initializer: Initializer of A for one task. Defaults to `"he_uniform"`.
        kernel_regularizer: Regularizer of A and B. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ..., n)`, or a dict or list with one for each task, as from
        another layer of this kind.

    Output shape:
        `(B, ..., m)` for each task: a dict, or a list if the input is one.

    Raises:
        ValueError: If `layer` is no `Dense`, or a size is not positive.

    Example:

    ```python
    inputs = keras.Input((16,))
    trunk = keras.layers.Dense(32, "relu")
    trunk.build((None, 16))
    trunk.trainable = False  # as trained before
    h = keras_mtl.layers.LowRankAdapter(trunk, ["a", "b"], rank=2)(inputs)
    outputs = {t: keras.layers.Dense(1, name=t)(x) for t, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    ```

    Reference:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
        https://arxiv.org/abs/2106.09685
    """

    keeps_tasks_apart = True
    """With an input for each task an output is made of its own alone."""

    def __init__(
        self,
        layer: keras.layers.Dense,
        task_names: Sequence[str],
        rank: int = 4,
        alpha: float | None = None,
        kernel_initializer: Any = "he_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        if not isinstance(layer, keras.layers.Dense):
            raise ValueError(
                f"`layer` must be a keras.layers.Dense. Received: layer={layer!r}"
            )
        self.layer = layer
        self.rank = check_count("rank", rank)
        self.alpha = None if alpha is None else check_number("alpha", alpha, above=0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

        def stacked(units, initializer, name):
            return StackedDense(
                self.num_tasks,
                (units,),
                use_bias=False,
                kernel_initializer=initializer,
                kernel_regularizer=self.kernel_regularizer,
                dtype=self.dtype_policy,
                name=f"{self.name}_{name}",
            )

        self.down = stacked(self.rank, self.kernel_initializer, "down")
        self.up = stacked(layer.units, "zeros", "up")
        self.down.stacked_by_task = self.up.stacked_by_task = True

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """The shared layer and the updates."""
        return [(self.layer, None), (self.down, None), (self.up, None)]

    def build(self, input_shape: Any) -> None:
        """Builds the shared layer and creates A `(T, n, r)` and B `(T, r, m)`."""
        shape = same_shape(self.structure_of(input_shape), input_shape)
        if not self.layer.built:
            self.layer.build(shape)
        if not self.down.built:
            self.down.build(shape)
            self.up.build((*shape[:-1], self.rank))

    def call(self, inputs: Any) -> Any:
        """Returns the output of the layer as each task has it."""
        structure = self.structure_of(inputs)
        x, axis = inputs, -2
        repeated = not structure.is_one
        if repeated:
            x, axis = ops.stack(structure.values(inputs)), 0
        x = ops.cast(x, self.compute_dtype)
        y = ops.matmul(x, ops.cast(self.layer.kernel, self.compute_dtype))
        if self.layer.use_bias:
            y = ops.add(y, ops.cast(self.layer.bias, self.compute_dtype))
        low = ops.moveaxis(self.down(x, repeated=repeated), -2, 0)
        update = self.up(low, repeated=True)  # (B, ..., T, m)
        if repeated:
            update = ops.moveaxis(update, -2, 0)
        else:
            y = ops.expand_dims(y, -2)
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        y = self.layer.activation(ops.add(y, update * scale))
        return structure.nest(ops.unstack(y, self.num_tasks, axis=axis))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each task that of the layer."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape)
        return structure.nest([(*shape[:-1], self.layer.units)] * self.num_tasks)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "rank": self.rank,
            "alpha": self.alpha,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LowRankAdapter":
        """Creates the layer, without weights, from its config."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})
