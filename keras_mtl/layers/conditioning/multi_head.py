"""One head for each task, held in stacked kernels."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import (
    TaskStructure,
    same_shape,
    shapes_of,
    specs_of,
)


@keras.saving.register_keras_serializable("keras_mtl")
class MultiHead(StackedDense):
    """T heads of one shape, computed together.

    $$ y_t = \\phi(h_t V_t + c_t), \\qquad h_t = \\psi(x W_t + b_t)
       \\quad\\text{(for each hidden layer)} $$

    It computes what T stacks of `keras.layers.Dense` with the same weights do.
    The kernels of all heads lie in one variable, so that a layer of all heads
    is one batched contraction and one variable to update: with many tasks the
    step is much cheaper than with separate heads. Heads share nothing: slice t
    of each variable belongs to task t alone.

    Args:
        units: Integer, the size of each head's output.
        task_names: List of T strings, the keys of the outputs.
        activation: Activation of the outputs, such as `"sigmoid"`. Defaults to
            `None` (linear).
        hidden_units: Tuple of integers, the sizes of the hidden layers of each
            head. `(64,)` makes every head a `Dense(64)` and a `Dense(units)`.
            Defaults to `()`.
        hidden_activation: Activation of the hidden layers. Defaults to `"relu"`.
        use_bias: Boolean, whether the layers have biases. Defaults to `True`.
        kernel_initializer: Initializer of the kernel of one head; every head is
            drawn by itself, with its own fan-in. Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of the bias of one head. Defaults to
            `"zeros"`.
        kernel_regularizer: Regularizer of the stacked kernels. Defaults to
            `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(B, ..., D)`, so `(B, D)` and sequences `(B, S, D)` alike; or a dict or list
        with one of the same shape for each task, as layers that share give them.

    Output shape:
        Dict of `(B, ..., units)`, one entry for each task name.

    Raises:
        ValueError: If a size is not positive, if `task_names` is empty or has a
            name twice, if the last axis of the input is not known, or if a dict of
            inputs has other keys or several shapes.

    Example:

    ```python
    inputs = keras.Input((39,))
    h = keras.layers.Dense(128, "relu")(inputs)
    outputs = keras_mtl.layers.MultiHead(
        1, ["income", "married"], activation="sigmoid", hidden_units=(64,)
    )(h)
    model = keras.Model(inputs, outputs)
    assert model(np.zeros((4, 39)))["income"].shape == (4, 1)
    ```

    Reference:
        Caruana, "Multitask Learning", Machine Learning 28, 1997,
        https://doi.org/10.1023/A:1007379606734
    """

    stacked_by_task = True
    """Axis 0 of every variable runs over the tasks."""

    keeps_tasks_apart = True
    """With an input for each task an output is made of its own alone."""

    takes_repeated = True
    """Whether `call` takes `repeated`, an input for each task."""

    def __init__(
        self,
        units: int,
        task_names: Sequence[str],
        activation: Any = None,
        hidden_units: Sequence[int] = (),
        hidden_activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(task_names, str) or not task_names:
            raise ValueError(
                "`task_names` must be a list with one name or more. "
                f"Received: {task_names!r}"
            )
        if len(set(task_names)) < len(task_names):
            raise ValueError(
                f"`task_names` must not hold a name twice. Received: {task_names}"
            )
        if isinstance(hidden_units, int):
            raise ValueError(
                f"`hidden_units` must be a tuple, one size for each hidden layer. "
                f"Received: {hidden_units}"
            )
        if min((units, *hidden_units)) < 1:
            raise ValueError(
                "`units` and `hidden_units` must be positive. "
                f"Received: units={units}, hidden_units={tuple(hidden_units)}"
            )
        super().__init__(
            len(task_names),
            (*hidden_units, units),
            activation,
            hidden_activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            **kwargs,
        )
        self.units = units
        self.task_names = list(task_names)
        self.hidden_units = tuple(hidden_units)

    @property
    def num_tasks(self) -> int:
        """Number of tasks, T."""
        return len(self.task_names)

    def call(
        self, inputs: Any, repeated: bool = False, mixture: Any = None
    ) -> dict[str, Any]:
        """Returns the dict of the heads' outputs.

        Args:
            inputs: The input of all heads.
            repeated: Whether axis 0 of `inputs` runs over the tasks, so that the
                gradient by them tells the tasks apart, whose inputs are in sorted
                order of the names, as Keras sorts a dict.
            mixture: Weights `(B, ..., T, E)`. With them `inputs` are the outputs
                `(B, ..., E, D)` of experts, and the head of task t reads their sum by
                the weights of t.
        """
        structure = TaskStructure.of(inputs, self.task_names)
        if mixture is not None:
            x = self.stacks_of_mixtures(inputs, mixture)
        elif structure.is_one:
            if repeated:
                inputs = self._in_task_order(inputs)
            x = self.compute_stacks(inputs, repeated)
        else:
            each = ops.stack(structure.values(inputs), axis=-2)
            x = self.stacks_of_own_inputs(each)
        heads = ops.unstack(x, self.num_tasks, axis=-2)
        return dict(zip(self.task_names, heads, strict=True))

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks the keys of a dict of inputs, then calls the layer."""
        TaskStructure.of(inputs, self.task_names)
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Creates kernels `(T, in, out)` and biases `(T, out)`, layer by layer."""
        super().build(self._shape_of_one(input_shape))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> dict[str, Any] | None:
        """Every head has the mask of its input."""
        if previous_mask is None:
            return None
        structure = TaskStructure.of(inputs, self.task_names)
        if not structure.is_one:
            masks = structure.values(previous_mask)
            return dict(zip(self.task_names, masks, strict=True))
        return dict.fromkeys(self.task_names, previous_mask)

    def compute_output_shape(
        self, input_shape: Any
    ) -> dict[str, tuple[int | None, ...]]:
        """A dict with that of the input, `units` as last axis, for every task."""
        shape = self._shape_of_one(input_shape)
        return dict.fromkeys(self.task_names, (*shape[:-1], self.units))

    def compute_output_spec(
        self, inputs: Any, **kwargs: Any
    ) -> dict[str, keras.KerasTensor]:
        """Checks the input and returns the specs, in the order of the tasks."""
        shape = self._shape_of_one(shapes_of(inputs))
        self._check_shape(shape)
        return specs_of(self.compute_output_shape(shape), self.compute_dtype)

    def _in_task_order(self, inputs: Any) -> Any:
        """Returns inputs in sorted order of the tasks' names in that of the heads."""
        order = np.argsort(np.argsort(self.task_names))
        if list(order) == list(range(self.num_tasks)):
            return inputs
        return ops.take(inputs, order, axis=0)

    def _shape_of_one(self, input_shape: Any) -> tuple[int | None, ...]:
        structure = TaskStructure.of(input_shape, self.task_names)
        return same_shape(structure, input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        for name in ("num_stacks", "layer_units", "inputs_first"):
            del config[name]
        return {
            **config,
            "units": self.units,
            "task_names": self.task_names,
            "hidden_units": self.hidden_units,
        }
