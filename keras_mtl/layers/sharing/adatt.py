"""Adaptive task-to-task fusion."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.layers.independent_initializers import independent_initializers
from keras_mtl.layers.sharing.customized_gate_control import SHARED
from keras_mtl.layers.sharing.gate import Gate, get_gate
from keras_mtl.layers.sharing.mixture_of_experts import check_units
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import same_shape


@keras.saving.register_keras_serializable("keras_mtl")
class AdaTT(SharingLayer):
    """Fuses the experts of all tasks for each, and adds its own (AdaTT).

    $$ y_t = \\sum_{e} g_t(x_t)_e \\, f_e + \\sum_{e \\in t} w_{te} \\, f_e $$

    Every task sees the experts of all tasks, each of which reads its own task's input.
    The residual of the task's own experts keeps a path that no gate can close; with
    one expert a task its weight is 1. Stack several for a deep network. Other than in
    `CustomizedGateControl` a task's experts are trained by all tasks.

    Args:
        task_names: List of T strings.
        units: Integer or tuple of integers, the sizes of the layers of one expert.
        task_experts: Integer, the number of experts of each task. Defaults to 1.
        shared_experts: Integer, the number of shared experts, which read a stream of
            their own. Defaults to 0.
        shared_gate: Boolean, whether there is an output "shared", for the shared
            experts of a next layer. Defaults to `False`.
        activation: Activation of all layers of the experts. Defaults to `"relu"`.
        use_bias: Boolean, whether experts have biases. Defaults to `True`.
        gate: A `SoftmaxGate` or `DSelectK`, which the shared gate is a copy of.
            Defaults to `SoftmaxGate()`.
        kernel_initializer: Initializer of the kernel of one expert. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ..., D)` for all, or a dict or list with one of the same shape
        for each task, and with shared experts one more, "shared", a list's last.

    Output shape:
        `(B, ..., units)` for each task, and with `shared_gate` for "shared": a dict,
        or a list if the input is one.

    Raises:
        ValueError: If a size is not positive, if a task is called "shared", if inputs
            differ in shape, or if `shared_gate` comes without shared experts.

    Example:

    ```python
    inputs = keras.Input((64,))
    h = keras_mtl.layers.AdaTT(["click", "like"], units=32)(inputs)
    h = keras_mtl.layers.AdaTT(["click", "like"], units=16)(h)
    assert h["click"].shape == (None, 16)
    ```

    Reference:
        Li et al., "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning
        in Recommendations", KDD 2023, https://arxiv.org/abs/2304.04959
    """

    def __init__(
        self,
        task_names: Sequence[str],
        units: int | Sequence[int],
        task_experts: int = 1,
        shared_experts: int = 0,
        shared_gate: bool = False,
        activation: Any = "relu",
        use_bias: bool = True,
        gate: Gate | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        if SHARED in self.task_names:
            raise ValueError(
                f"No task can be called {SHARED!r}, the key of the shared stream. "
                f"Received: task_names={self.task_names}"
            )
        self.num_task_experts = check_count("task_experts", task_experts)
        self.num_shared_experts = check_count(
            "shared_experts", shared_experts, at_least=0
        )
        if shared_gate and not self.num_shared_experts:
            raise ValueError(
                "`shared_gate` gives the input of shared experts of a next layer: it "
                "needs `shared_experts`. Received: shared_experts=0"
            )
        self.extra_keys = (SHARED,) if self.num_shared_experts else ()
        units = check_units(units)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        initializers = independent_initializers(self.kernel_initializer, 2)

        def experts(count, name):
            return StackedDense(
                count,
                units,
                activation,
                activation,
                use_bias,
                initializers.pop(),
                bias_initializer,
                kernel_regularizer,
                dtype=self.dtype_policy,
                name=f"{self.name}_{name}",
            )

        self.task_experts = experts(
            self.num_tasks * self.num_task_experts, "task_experts"
        )
        self.shared_experts = None
        if self.num_shared_experts:
            self.shared_experts = experts(self.num_shared_experts, "shared_experts")
        self.gate = get_gate(gate)
        # What a task makes may go on to others in a next layer.
        self.shared_gate = None
        if shared_gate:
            self.shared_gate = self.gate.copy(f"{self.gate.name}_shared")
            self.shared_gate.set_size(self.num_experts, [SHARED])
            self.shared_gate.stacked_by_task = False
        self.gate.set_size(self.num_experts, self.task_names)
        self.own = None
        if self.num_task_experts > 1:
            self.own = _OwnWeights(
                self.num_tasks,
                self.num_task_experts,
                dtype=self.dtype_policy,
                name=f"{self.name}_own",
            )

    @property
    def num_experts(self) -> int:
        """Number of experts of all tasks and shared ones."""
        return self.num_tasks * self.num_task_experts + self.num_shared_experts

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """Experts, gates and the weights of the residual."""
        parts = [
            self.task_experts,
            self.shared_experts,
            self.gate,
            self.shared_gate,
            self.own,
        ]
        return [(part, None) for part in parts if part is not None]

    def build(self, input_shape: Any) -> None:
        """Builds experts, gates and the weights of the residual."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape, self.extra_keys)
        for part in (
            self.task_experts,
            self.shared_experts,
            self.gate,
            self.shared_gate,
        ):
            if part is not None and not part.built:
                part.build((*shape[:1], *shape[-1:]))
        if self.own is not None and not self.own.built:
            self.own.build()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the fusion of each task, and that of the shared stream."""
        structure = self.structure_of(inputs)
        repeated = not structure.is_one
        by_task = shared = inputs
        if repeated:
            values = structure.values(inputs, self.extra_keys)
            by_task = ops.stack(values[: self.num_tasks])
            shared = values[-1]
        of_tasks = self.task_experts(by_task, repeated=repeated)
        everything = of_tasks
        if self.shared_experts is not None:
            everything = ops.concatenate([of_tasks, self.shared_experts(shared)], -2)
        weights = self.gate(by_task, repeated=repeated, training=training)
        mixed = ops.add(ops.matmul(weights, everything), self._residual(of_tasks))
        outputs = list(ops.unstack(mixed, self.num_tasks, axis=-2))
        if self.shared_gate is None:
            return structure.nest(outputs)
        weights = self.shared_gate(shared, training=training)
        outputs.append(ops.squeeze(ops.matmul(weights, everything), -2))
        return structure.nest(outputs, self.extra_keys)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each stream that of its input, with `units` as last axis."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape, self.extra_keys)
        shape = (*shape[:-1], self.task_experts.layer_units[-1])
        extra = () if self.shared_gate is None else self.extra_keys
        return structure.nest([shape] * (self.num_tasks + len(extra)), extra)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """For each stream that of its input."""
        if super().compute_mask(inputs, previous_mask) is None:
            return None
        structure = self.structure_of(inputs)
        extra = () if self.shared_gate is None else self.extra_keys
        masks = structure.values(previous_mask, self.extra_keys)
        return structure.nest(masks[: self.num_tasks + len(extra)], extra)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        dense = self.task_experts.get_dense_config()
        del dense["hidden_activation"]
        return {
            **super().get_config(),
            **dense,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "units": self.task_experts.layer_units,
            "task_experts": self.num_task_experts,
            "shared_experts": self.num_shared_experts,
            "shared_gate": self.shared_gate is not None,
            "gate": keras.saving.serialize_keras_object(self.gate),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdaTT":
        """Creates the layer, without weights, from its config."""
        gate = keras.saving.deserialize_keras_object(config["gate"])
        return cls(**{**config, "gate": gate})

    def _residual(self, of_tasks: Any) -> Any:
        """Returns what each task's own experts add, `(..., T, units)`."""
        if self.own is None:
            return of_tasks
        *leading, _, units = ops.shape(of_tasks)
        grouped = ops.reshape(
            of_tasks, (*leading, self.num_tasks, self.num_task_experts, units)
        )
        own = ops.expand_dims(ops.cast(self.own.weight, self.compute_dtype), -1)
        return ops.sum(own * grouped, axis=-2)


class _OwnWeights(keras.layers.Layer):
    """How much each task takes of each of its own experts."""

    stacked_by_task = True

    def __init__(self, num_tasks: int, num_experts: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = num_tasks, num_experts
        self.weight = None

    def build(self, input_shape: Any = None) -> None:
        bound = self.shape[1] ** -0.5
        self.weight = self.add_weight(
            name="weight",
            shape=self.shape,
            initializer=keras.initializers.RandomUniform(-bound, bound),
        )
