"""Attention masks of each task on the features of a shared network."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.layers.independent_initializers import independent_initializers
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import is_shape, shapes_of, specs_of


@keras.saving.register_keras_serializable("keras_mtl")
class TaskAttention(SharingLayer):
    """Picks for each task its features from a block of a shared network (MTAN).

    With the first and the last features u and p of a block, and what the task's
    attention made of the block before:

    $$ a_t = \\sigma(\\mathrm{BN}(v_t(\\mathrm{relu}(\\mathrm{BN}(w_t([u; f(\\hat
       a_t^{prev})]))))))), \\qquad \\hat a_t = a_t \\odot p $$

    w and v are 1x1 convolutions of each task's own: dense layers on the channels, so
    that features may be rows, sequences or images alike. The transition f is shared by
    the tasks: a 3x3 convolution, batch normalisation and relu, with max pooling to the
    size of u, for images; a dense layer and relu for rows and sequences.

    Args:
        task_names: List of T strings.
        units: Integer, the channels between w and v. Defaults to `None`, those of p.
        pool_size: Integer or tuple of integers, how many times larger the inner axes
            of `previous` are than those of u. Defaults to `None`, as their shapes say;
            where these are not known it must be given.
        kernel_initializer: Initializer of the kernels. Defaults to
            `"glorot_uniform"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: List of u and p, `(B, ..., C)` with the same inner axes; or one tensor,
            which then is both.
        previous: Dict of what another layer of this kind made of the block before. Its
            inner axes must be those of u, or a whole multiple of them.

    Output shape:
        That of p for each task: a dict.

    Raises:
        ValueError: If u, p and `previous` do not fit together.

    Example:

    ```python
    image = keras.Input((32, 32, 3))
    tasks = ["depth", "normals"]
    u = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    p = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(u)
    first = keras_mtl.layers.TaskAttention(tasks)([u, p])
    u = keras.layers.MaxPooling2D()(p)
    p = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(u)
    second = keras_mtl.layers.TaskAttention(tasks)([u, p], previous=first)
    assert second["depth"].shape == (None, 16, 16, 16)
    ```

    Reference:
        Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019,
        https://arxiv.org/abs/1803.10704
    """

    def __init__(
        self,
        task_names: Sequence[str],
        units: int | None = None,
        pool_size: int | Sequence[int] | None = None,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        self.units = None if units is None else check_count("units", units)
        self.pool_size = pool_size
        if pool_size is not None:
            sizes = pool_size if isinstance(pool_size, list | tuple) else [pool_size]
            sizes = tuple(check_count("pool_size", size) for size in sizes)
            self.pool_size = sizes if len(sizes) > 1 else sizes[0]
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.first = self.second = None
        self.first_norm = self.second_norm = None
        self.transition: list[keras.layers.Layer] = []

    def __call__(
        self, inputs: Any, previous: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Checks the structure of the inputs, then calls the layer."""
        features = inputs if isinstance(inputs, list | tuple) else [inputs]
        if isinstance(inputs, Mapping) or len(features) > 2:
            raise ValueError(
                "The input must be a list of the first and the last features of a "
                f"block, or one tensor. Received: {inputs!r}"
            )
        if previous is not None and (
            not isinstance(previous, Mapping)
            or sorted(previous) != sorted(self.task_names)
        ):
            raise ValueError(
                "`previous` must be a dict with what the layer of the block before "
                f"made for {self.task_names}. Received: previous={previous!r}"
            )
        if previous is not None:
            kwargs["previous"] = dict(previous)
        return keras.layers.Layer.__call__(self, inputs, *args, **kwargs)

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """The attention of each task, and the transition that they share."""
        if not self.built:
            return []
        parts = [self.first, self.first_norm, self.second, self.second_norm]
        return [(part, None) for part in (*parts, *self.transition) if part.weights]

    def output_names(self, inputs: Any) -> list[str]:
        """Returns the keys of the outputs in the order that Keras flattens them in."""
        return keras.tree.flatten({name: name for name in self.task_names})

    def build(self, inputs_shape: Any, previous_shape: Any = None) -> None:
        """Creates the attention of all tasks, and the transition."""
        u, p = self._check_shapes(inputs_shape, previous_shape)
        units = self.units or p[-1]
        first, second, across = independent_initializers(self.kernel_initializer, 3)
        channels = u[-1]
        if previous_shape is not None:
            before = tuple(previous_shape[self.task_names[0]])
            self._build_transition(before, u, across)
            channels += u[-1]
        self.first = self._stacked(units, first, "first")
        self.first.build((*u[:-1], channels))
        self.second = self._stacked(p[-1], second, "second")
        self.second.build((*u[:-1], units))
        self.first_norm = self._norm("first_norm")
        self.first_norm.build((*u[:-1], self.num_tasks * units))
        self.second_norm = self._norm("second_norm")
        self.second_norm.build((*u[:-1], self.num_tasks * p[-1]))

    def call(
        self, inputs: Any, previous: Any = None, training: bool | None = None
    ) -> dict[str, Any]:
        """Returns the features of each task."""
        u, p = inputs if isinstance(inputs, list | tuple) else (inputs, inputs)
        p = ops.cast(p, self.compute_dtype)
        x = ops.cast(u, self.compute_dtype)
        if previous is not None:
            x = self._with_previous(x, previous, training)
        h = self.first(x, repeated=previous is not None)
        h = ops.relu(self._normalized(h, self.first_norm, training))
        h = self.second(ops.moveaxis(h, -2, 0), repeated=True)
        mask = ops.sigmoid(self._normalized(h, self.second_norm, training))
        attended = ops.multiply(mask, ops.expand_dims(p, -2))
        features = ops.unstack(attended, self.num_tasks, axis=-2)
        return dict(zip(self.task_names, features, strict=True))

    def compute_mask(
        self, inputs: Any, previous_mask: Any, **kwargs: Any
    ) -> dict[str, Any] | None:
        """For each task that of p."""
        mask = previous_mask
        if isinstance(mask, list | tuple):
            mask = mask[-1]
        return None if mask is None else dict.fromkeys(self.task_names, mask)

    def compute_output_shape(
        self, inputs_shape: Any, previous_shape: Any = None
    ) -> dict[str, tuple[int | None, ...]]:
        """For each task that of p."""
        _, p = self._check_shapes(inputs_shape, previous_shape)
        return dict.fromkeys(self.task_names, p)

    def compute_output_spec(
        self, inputs: Any, previous: Any = None, training: bool | None = None
    ) -> dict[str, keras.KerasTensor]:
        """Checks the inputs and returns the specs of the features."""
        before = None if previous is None else shapes_of(previous)
        shapes = self.compute_output_shape(shapes_of(inputs), before)
        return specs_of(shapes, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "pool_size": self.pool_size,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _stacked(self, units: int, initializer: Any, name: str) -> StackedDense:
        layer = StackedDense(
            self.num_tasks,
            (units,),
            kernel_initializer=initializer,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=f"{self.name}_{name}",
        )
        layer.stacked_by_task = True
        return layer

    def _norm(self, name: str) -> keras.layers.BatchNormalization:
        layer = keras.layers.BatchNormalization(
            dtype=self.dtype_policy, name=f"{self.name}_{name}"
        )
        layer.stacked_by_task = True
        return layer

    def _normalized(self, h: Any, norm: Any, training: bool | None) -> Any:
        """Normalises every channel of every task, `(..., T, n)`."""
        shape = ops.shape(h)
        flat = ops.reshape(h, (*shape[:-2], h.shape[-2] * h.shape[-1]))
        return ops.reshape(norm(flat, training=training), shape)

    def _with_previous(self, u: Any, previous: Any, training: bool | None) -> Any:
        """Returns `[u; f(previous)]` of all tasks, `(T, B, ..., C)`."""
        moved = ops.concatenate([previous[name] for name in self.task_names], axis=0)
        moved = ops.cast(moved, self.compute_dtype)
        for layer in self.transition:
            if isinstance(layer, keras.layers.BatchNormalization):
                moved = layer(moved, training=training)
            else:
                moved = layer(moved)
        by_task = ops.split(moved, self.num_tasks, axis=0)
        return ops.stack([ops.concatenate([u, m], axis=-1) for m in by_task])

    def _build_transition(self, before: Any, u: Any, initializer: Any) -> None:
        arguments = {
            "kernel_initializer": initializer,
            "kernel_regularizer": self.kernel_regularizer,
            "dtype": self.dtype_policy,
        }
        name = f"{self.name}_transition"
        if len(u) == 4:
            self.transition = [
                keras.layers.Conv2D(u[-1], 3, padding="same", name=name, **arguments),
                keras.layers.BatchNormalization(
                    dtype=self.dtype_policy, name=f"{name}_norm"
                ),
                keras.layers.ReLU(dtype=self.dtype_policy),
            ]
        else:
            self.transition = [
                keras.layers.Dense(u[-1], "relu", name=name, **arguments)
            ]
        factors = _factors(before, u, self.pool_size)
        if any(factor > 1 for factor in factors):
            pool = {
                1: keras.layers.MaxPooling1D,
                2: keras.layers.MaxPooling2D,
            }[len(factors)]
            size = factors[0] if len(factors) == 1 else factors
            self.transition.append(pool(size, dtype=self.dtype_policy))
        shape = before
        for layer in self.transition:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def _check_shapes(self, inputs_shape: Any, previous_shape: Any) -> tuple[Any, Any]:
        """Returns the shapes of u and p."""
        if is_shape(inputs_shape):
            u = p = tuple(inputs_shape)
        else:
            u, p = (tuple(s) for s in (inputs_shape[0], inputs_shape[-1]))
        if len(u) not in (2, 3, 4) or u[:-1] != p[:-1] or None in (u[-1], p[-1]):
            raise ValueError(
                "The first and the last features of a block must have the same axes, "
                "two to four, with channels of known number as the last. "
                f"Received: shapes {u} and {p}"
            )
        if previous_shape is not None:
            shapes = {tuple(previous_shape[name]) for name in self.task_names}
            (before, *others) = shapes
            fits = not others and len(before) == len(u)
            if not fits or _factors(before, u, self.pool_size) is None:
                raise ValueError(
                    "What the block before made must have one shape for all tasks, "
                    "whose inner axes are those of this block or a whole multiple of "
                    "them: `pool_size`, which must be given where they are not known. "
                    f"Received: previous of shapes {sorted(map(str, shapes))}, "
                    f"features of shape {u}, pool_size={self.pool_size}"
                )
        return u, p


def _factors(before: Any, u: Any, pool_size: Any) -> tuple[int, ...] | None:
    """Returns how many times larger the inner axes were, None if that is no number."""
    inner = list(zip(before[1:-1], u[1:-1], strict=True))
    given = pool_size if isinstance(pool_size, tuple) else [pool_size] * len(inner)
    if len(given) != len(inner):
        return None
    factors = []
    for (size, now), factor in zip(inner, given, strict=True):
        if None not in (size, now):
            found = size // now if now and size >= now else 0
            if found == 0 or size // found != now or factor not in (None, found):
                return None
            factors.append(found)
        elif factor is None:
            return None
        else:
            factors.append(factor)
    return tuple(factors)
