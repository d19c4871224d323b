"""A shallow tower that learns what is due to the position, and is left out after."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.independent_initializers import independent_initializers
from keras_mtl.layers.task_structure import is_shape


@keras.saving.register_keras_serializable("keras_mtl")
class PositionBiasTower(keras.layers.Layer):
    """Adds to logits, in training alone, a logit of the position and the like.

    $$ z = z_{main}(x) + 1_{training} \\; z_{bias}(d \\cdot b) $$

    What is shown first is clicked more often, whatever it is. The tower takes that on
    itself, so that the main logit is what is left: how much an item is wanted. When
    serving, in `predict` and in `evaluate`, the main logit is alone. In training the
    features of some rows are dropped (all of a row are 0, d in the formula), so that
    the main logit does not count on the tower.

    Several tasks have a logit of the tower each. Only those need it whose label
    depends on the position: clicks, not ratings.

    Args:
        hidden_units: Tuple of integers, sizes of the hidden layers. Defaults to
            `()`, for a linear tower.
        dropout: Float, the part of the rows whose features are dropped. Defaults to
            0.1.
        activation: Activation of the hidden layers. Defaults to `"relu"`.
        kernel_initializer: Initializer of the kernels. Defaults to
            `"glorot_uniform"`.
        seed: Seed of the dropout.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        logits: Tensor `(B, 1)`, or a dict or list of them by task.
        features: Features of the bias `(B, F)`, such as the one-hot position, or an
            embedding of it and of the device.

    Output shape:
        As `logits`.

    Raises:
        ValueError: If an argument is out of range, or an input has another shape.

    Example:

    ```python
    x, position = keras.Input((16,)), keras.Input((10,), name="position")
    logit = keras.layers.Dense(1)(x)
    logit = keras_mtl.layers.PositionBiasTower()(logit, position)
    click = keras.layers.Activation("sigmoid")(logit)
    model = keras.Model([x, position], click)
    first, last = np.eye(10)[[0]], np.eye(10)[[9]]
    x = np.ones((1, 16))
    assert model.predict([x, first], verbose=0) == model.predict([x, last], verbose=0)
    ```

    Reference:
        Zhao et al., "Recommending What Video to Watch Next: A Multitask Ranking
        System", RecSys 2019, https://doi.org/10.1145/3298689.3346997
    """

    def __init__(
        self,
        hidden_units: Sequence[int] = (),
        dropout: float = 0.1,
        activation: Any = "relu",
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # The logits are those of the main network, to the last digit.
        super().__init__(autocast=False, **kwargs)
        if isinstance(hidden_units, int):
            raise ValueError(
                "`hidden_units` must be a tuple, one size for each hidden layer. "
                f"Received: hidden_units={hidden_units}"
            )
        self.hidden_units = tuple(
            check_count("hidden_units", units) for units in hidden_units
        )
        self.dropout = check_number("dropout", dropout, at_least=0)
        if self.dropout >= 1:
            raise ValueError(
                f"`dropout` must be less than 1. Received: dropout={dropout}"
            )
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if self.dropout else None
        self.tower = []

    def build(self, logits_shape: Any, features_shape: tuple[int | None, ...]) -> None:
        """Creates the layers of the tower."""
        shapes = self._check(logits_shape, features_shape)
        sizes = (*self.hidden_units, len(shapes))
        initializers = independent_initializers(self.kernel_initializer, len(sizes))
        shape = features_shape
        for depth, size in enumerate(sizes):
            last = depth == len(sizes) - 1
            layer = keras.layers.Dense(
                size,
                None if last else self.activation,
                kernel_initializer=initializers[depth],
                dtype=self.dtype_policy,
                name=f"dense_{depth}",
            )
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
            self.tower.append(layer)

    def call(self, logits: Any, features: Any, training: bool | None = None) -> Any:
        """Returns the logits, in training with those of the tower."""
        if not training:
            return keras.tree.map_structure(ops.convert_to_tensor, logits)
        h = ops.cast(features, self.compute_dtype)
        if self.dropout:
            shape = (ops.shape(h)[0], 1)
            drawn = keras.random.uniform(shape, seed=self.seed_generator)
            h = h * ops.cast(drawn >= self.dropout, h.dtype)
        for layer in self.tower:
            h = layer(h)
        added = [
            ops.add(z, ops.cast(h[:, i : i + 1], z.dtype))
            for i, z in enumerate(map(ops.convert_to_tensor, _flat(logits)))
        ]
        if isinstance(logits, Mapping):
            return dict(zip(sorted(logits), added, strict=True))
        return added if isinstance(logits, list | tuple) else added[0]

    def inputs_behind(self, inputs: Any, index: int) -> list[int]:
        """Returns the places of the inputs that a logit trains, features last."""
        return [index, len(keras.tree.flatten(inputs))]

    def compute_output_shape(
        self, logits_shape: Any, features_shape: tuple[int | None, ...]
    ) -> Any:
        """That of the logits."""
        self._check(logits_shape, features_shape)
        return keras.tree.map_shape_structure(tuple, logits_shape)

    def compute_output_spec(
        self, logits: Any, features: Any, training: bool | None = None
    ) -> Any:
        """Checks the inputs and returns the specs of the logits."""
        shapes = keras.tree.map_structure(lambda z: tuple(z.shape), logits)
        self._check(shapes, features.shape)
        return keras.tree.map_structure(
            lambda z: keras.KerasTensor(z.shape, dtype=z.dtype), logits
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "dropout": self.dropout,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }

    def _check(
        self, logits_shape: Any, features_shape: tuple[int | None, ...]
    ) -> list[tuple[int | None, ...]]:
        """Returns the shapes of the logits in a flat list."""
        shapes = [logits_shape] if is_shape(logits_shape) else _flat(logits_shape)
        if any(len(shape) != 2 or shape[-1] != 1 for shape in shapes):
            raise ValueError(
                "The logits must be of shape (batch, 1). "
                f"Received: logits of shapes {[tuple(shape) for shape in shapes]}"
            )
        if len(features_shape) != 2 or features_shape[-1] is None:
            raise ValueError(
                "The features must be of shape (batch, features): encode a position "
                "as one-hot, or embed it. "
                f"Received: features of shape {tuple(features_shape)}"
            )
        return shapes


def _flat(nest: Any) -> list[Any]:
    """Returns the entries of a dict in the order of its sorted keys, or of a list."""
    if isinstance(nest, Mapping):
        return [nest[key] for key in sorted(nest)]
    return list(nest) if isinstance(nest, list | tuple) else [nest]
