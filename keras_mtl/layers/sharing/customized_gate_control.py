"""Customized gate control: experts of each task's own beside shared ones."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.layers.independent_initializers import independent_initializers
from keras_mtl.layers.sharing.gate import Gate, get_gate
from keras_mtl.layers.sharing.mixture_of_experts import check_units
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import same_shape

SHARED = "shared"
"""The key of the shared stream, beside those of the tasks."""


@keras.saving.register_keras_serializable("keras_mtl")
class CustomizedGateControl(SharingLayer):
    """Mixes for each task its own experts and shared ones (CGC).

    $$ y_t = \\sum_{e \\in t \\cup sh} g_t(x_t)_e \\, f_e(x_{(e)}), \\qquad
       y_{sh} = \\sum_{e} g_{sh}(x_{sh})_e \\, f_e(x_{(e)}) $$

    An expert reads the input of its own stream: of its task, or the shared one. Task t
    never sees the experts of another task, so they get no gradient from it; what all
    experts make together goes on in the shared stream alone, whose gate weighs all of
    them. `ProgressiveLayeredExtraction` stacks such layers; the last has no shared
    gate.

    Args:
        task_names: List of T strings.
        units: Integer or tuple of integers, the sizes of the layers of one expert.
        task_experts: Integer, the number of experts of each task. Defaults to 1.
        shared_experts: Integer, the number of shared experts. Defaults to 1.
        shared_gate: Boolean, whether there is an output "shared", for a next layer.
            Defaults to `False`.
        activation: Activation of all layers of the experts. Defaults to `"relu"`.
        use_bias: Boolean, whether experts have biases. Defaults to `True`.
        gate: A `SoftmaxGate` or `DSelectK`, which the shared gate is a copy of.
            Defaults to `SoftmaxGate()`.
        kernel_initializer: Initializer of the kernel of one expert; each is drawn by
            itself. Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ..., D)` for all streams, or a dict with one of the same shape
        for each task and "shared", or a list of them with the shared one last.

    Output shape:
        `(B, ..., units)` for each task, and with `shared_gate` for "shared": a dict,
        or a list if the input is one.

    Raises:
        ValueError: If a size is not positive, if a task is called "shared", or if
            inputs differ in shape.

    Example:

    ```python
    inputs = keras.Input((64,))
    streams = keras_mtl.layers.CustomizedGateControl(
        ["click", "like"], units=32, shared_gate=True
    )(inputs)
    assert sorted(streams) == ["click", "like", "shared"]
    h = keras_mtl.layers.CustomizedGateControl(["click", "like"], units=16)(streams)
    assert sorted(h) == ["click", "like"]
    ```

    Reference:
        Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020,
        https://doi.org/10.1145/3383313.3412236
    """

    extra_keys = (SHARED,)

    def __init__(
        self,
        task_names: Sequence[str],
        units: int | Sequence[int],
        task_experts: int = 1,
        shared_experts: int = 1,
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
        self.num_shared_experts = check_count("shared_experts", shared_experts)
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
        self.shared_experts = experts(self.num_shared_experts, "shared_experts")
        self.gate = get_gate(gate)
        self.shared_gate = None
        if shared_gate:
            self.shared_gate = self.gate.copy(f"{self.gate.name}_shared")
            self.shared_gate.set_size(self.num_experts, [SHARED])
            self.shared_gate.stacked_by_task = False
        self.gate.set_size(self.gate_size(), self.task_names)
        # Without a shared stream nothing that is a task's own reaches another.
        self.task_experts.stacked_by_task = not shared_gate
        self.gate.stacked_by_task = not shared_gate

    @property
    def num_experts(self) -> int:
        """Number of experts of all tasks and shared ones."""
        return self.num_tasks * self.num_task_experts + self.num_shared_experts

    def gate_size(self) -> int:
        """Returns the number of experts that a task weighs."""
        return self.num_task_experts + self.num_shared_experts

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """Experts and gates of the tasks, the shared experts and the shared gate."""
        parts = [self.task_experts, self.shared_experts, self.gate, self.shared_gate]
        return [(part, None) for part in parts if part is not None]

    def build(self, input_shape: Any) -> None:
        """Builds experts and gates."""
        shape = self._shape_of_one(input_shape)
        for part, _ in self.task_parts():
            if not part.built:
                part.build((*shape[:1], *shape[-1:]))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the mixture of each task, and that of the shared stream."""
        structure = self.structure_of(inputs)
        if structure.is_one:
            by_task = shared = inputs
        else:
            *by_task, shared = structure.values(inputs, self.extra_keys)
            by_task = ops.stack(by_task)
        repeated = not structure.is_one
        of_tasks = self.task_experts(by_task, repeated=repeated)
        of_shared = self.shared_experts(shared)
        weights = self.gate(by_task, repeated=repeated, training=training)
        own, common = ops.split(weights, [self.num_task_experts], axis=-1)
        inner = ops.shape(of_shared)[:-2]
        units = self.task_experts.layer_units[-1]
        grouped = ops.reshape(
            of_tasks, (*inner, self.num_tasks, self.num_task_experts, units)
        )
        mixed = ops.squeeze(ops.matmul(ops.expand_dims(own, -2), grouped), -2)
        mixed = ops.add(mixed, ops.matmul(common, of_shared))
        outputs = list(ops.unstack(mixed, self.num_tasks, axis=-2))
        if self.shared_gate is None:
            return structure.nest(outputs)
        weights = self.shared_gate(shared, training=training)
        everything = ops.concatenate([of_tasks, of_shared], axis=-2)
        outputs.append(ops.squeeze(ops.matmul(weights, everything), -2))
        return structure.nest(outputs, self.extra_keys)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each stream that of its input, with `units` as last axis."""
        structure = self.structure_of(input_shape)
        extra = () if self.shared_gate is None else self.extra_keys
        shape = self._shape_of_one(input_shape)
        shape = (*shape[:-1], self.task_experts.layer_units[-1])
        return structure.nest([shape] * (self.num_tasks + len(extra)), extra)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """For each stream that of its input."""
        structure = self.structure_of(inputs)
        extra = () if self.shared_gate is None else self.extra_keys
        masks = super().compute_mask(inputs, previous_mask)
        if masks is None:
            return None
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
    def from_config(cls, config: dict[str, Any]) -> "CustomizedGateControl":
        """Creates the layer, without weights, from its config."""
        gate = keras.saving.deserialize_keras_object(config["gate"])
        return cls(**{**config, "gate": gate})

    def _shape_of_one(self, input_shape: Any) -> tuple[int | None, ...]:
        structure = self.structure_of(input_shape)
        return same_shape(structure, input_shape, self.extra_keys)
