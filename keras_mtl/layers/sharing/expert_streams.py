"""Experts of each task and shared ones, on streams of their own."""

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
from keras_mtl.layers.task_structure import masks_of, same_shape

SHARED = "shared"
"""The key of the shared stream, beside those of the tasks."""


class ExpertStreams(SharingLayer):
    """Base of layers with experts for each task and, as a rule, shared ones.

    An expert reads the input of its own stream: of its task, or the shared one. A
    subclass mixes their outputs for the tasks in `mix_tasks`; the shared stream, where
    a next layer wants it, is the mixture of all experts by a gate of its own.

    Args:
        task_names: List of T strings, none of them "shared".
        units: Integer or tuple of integers, the sizes of the layers of one expert.
        task_experts: Integer, the number of experts of each task.
        shared_experts: Integer, the number of shared experts. Without any there is no
            shared stream.
        shared_gate: Boolean, whether there is an output "shared".
        activation: Activation of all layers of the experts.
        use_bias: Boolean, whether experts have biases.
        gate: The gate of the tasks, which the shared gate is a copy of.
        kernel_initializer: Initializer of the kernel of one expert.
        bias_initializer: Initializer of its bias.
        kernel_regularizer: Regularizer of the kernels.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        task_names: Sequence[str],
        units: int | Sequence[int],
        task_experts: int,
        shared_experts: int,
        shared_gate: bool,
        activation: Any,
        use_bias: bool,
        gate: Gate | None,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
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
        self.shared_gate = None
        if shared_gate:
            self.shared_gate = self.gate.copy(f"{self.gate.name}_shared", place=1)
            self.shared_gate.set_size(self.num_experts, [SHARED])
            self.shared_gate.stacked_by_task = False
        self.gate.set_size(self.gate_size(), self.task_names)

    @property
    def num_experts(self) -> int:
        """Number of experts of all tasks and shared ones."""
        return self.num_tasks * self.num_task_experts + self.num_shared_experts

    @property
    def output_extra(self) -> Sequence[str]:
        """Keys of the outputs beside those of the tasks."""
        return () if self.shared_gate is None else self.extra_keys

    def gate_size(self) -> int:
        """Returns the number of experts that a task weighs."""
        return self.num_experts

    def gate_inputs(self, by_task: Any, shared: Any, repeated: bool) -> Any:
        """Returns what the gates of the tasks read."""
        return by_task

    def mix_tasks(self, of_tasks: Any, of_shared: Any, weights: Any) -> Any:
        """Returns the mixture of each task, `(..., T, units)`.

        Args:
            of_tasks: Outputs of the experts of tasks, `(..., T * task_experts, units)`.
            of_shared: Outputs of shared experts, `(..., shared_experts, units)`, or
                None.
            weights: Weights of the gates, `(..., T, gate_size)`.
        """
        raise NotImplementedError

    def by_owner(self, of_tasks: Any) -> Any:
        """Returns the experts' outputs by task, `(..., T, task_experts, units)`."""
        *inner, _, units = ops.shape(of_tasks)
        return ops.reshape(
            of_tasks, (*inner, self.num_tasks, self.num_task_experts, units)
        )

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """Experts and gates of the tasks, the shared experts and the shared gate."""
        parts = [self.task_experts, self.shared_experts, self.gate, self.shared_gate]
        return [(part, None) for part in parts if part is not None]

    def build(self, input_shape: Any) -> None:
        """Builds experts and gates."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape, self.extra_keys)
        for part, _ in self.task_parts():
            if not part.built:
                part.build((*shape[:1], *shape[-1:]))

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Returns the mixture of each task, and that of the shared stream."""
        structure = self.structure_of(inputs)
        repeated = not structure.is_one
        by_task = shared = inputs
        task_mask = shared_mask = None if repeated else mask
        if repeated:
            values = structure.values(inputs, self.extra_keys)
            by_task, shared = ops.stack(values[: self.num_tasks]), values[-1]
            masks = masks_of(structure, inputs, mask, self.extra_keys)
            if masks is not None:
                task_mask = ops.stack(masks[: self.num_tasks], axis=-1)
                shared_mask = masks[-1]
        of_tasks = self.task_experts.compute_stacks(by_task, repeated)
        of_shared = None
        if self.shared_experts is not None:
            of_shared = self.shared_experts.compute_stacks(shared)
        read = self.gate_inputs(by_task, shared, repeated)
        weights = self.gate(read, repeated=repeated, mask=task_mask, training=training)
        mixed = self.mix_tasks(of_tasks, of_shared, weights)
        outputs = list(ops.unstack(mixed, self.num_tasks, axis=-2))
        if self.shared_gate is not None:
            weights = self.shared_gate(shared, mask=shared_mask, training=training)
            everything = ops.concatenate([of_tasks, of_shared], axis=-2)
            outputs.append(ops.squeeze(ops.matmul(weights, everything), -2))
        return structure.nest(outputs, self.output_extra)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each stream that of its input, with `units` as last axis."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape, self.extra_keys)
        shape = (*shape[:-1], self.task_experts.layer_units[-1])
        count = self.num_tasks + len(self.output_extra)
        return structure.nest([shape] * count, self.output_extra)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """For each stream that of its input."""
        if super().compute_mask(inputs, previous_mask) is None:
            return None
        structure = self.structure_of(inputs)
        masks = structure.values(previous_mask, self.extra_keys)
        count = self.num_tasks + len(self.output_extra)
        return structure.nest(masks[:count], self.output_extra)

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
    def from_config(cls, config: dict[str, Any]) -> "ExpertStreams":
        """Creates the layer, without weights, from its config."""
        gate = keras.saving.deserialize_keras_object(config["gate"])
        return cls(**{**config, "gate": gate})
