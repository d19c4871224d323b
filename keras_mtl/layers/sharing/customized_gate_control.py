"""Customized gate control: experts of each task's own beside shared ones."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.layers.sharing.expert_streams import SHARED, ExpertStreams
from keras_mtl.layers.sharing.gate import Gate


@keras.saving.register_keras_serializable("keras_mtl")
class CustomizedGateControl(ExpertStreams):
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
        check_count("shared_experts", shared_experts)
        super().__init__(
            task_names,
            units,
            task_experts,
            shared_experts,
            shared_gate,
            activation,
            use_bias,
            gate,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            **kwargs,
        )
        # Without a shared stream nothing that is a task's own reaches another.
        self.task_experts.stacked_by_task = not shared_gate
        self.gate.stacked_by_task = not shared_gate

    def gate_size(self) -> int:
        """A task weighs its own experts and the shared ones."""
        return self.num_task_experts + self.num_shared_experts

    def inputs_behind(self, inputs: Any, index: int) -> list[int]:
        """Returns the places of the inputs that an output trains: its own, the shared.

        Args:
            inputs: What the layer is called with.
            index: The place of an output. If it is the shared one, that of all inputs.
        """
        structure = self.structure_of(inputs)
        if structure.is_one:
            return [0]
        names = [*structure.names, *self.extra_keys]
        names = names if structure.kind == "list" else sorted(names)
        output = self.output_names(inputs)[index]
        if output == SHARED:
            return list(range(len(names)))
        return [names.index(output), names.index(SHARED)]

    def mix_tasks(self, of_tasks: Any, of_shared: Any, weights: Any) -> Any:
        """Returns the mixture of the experts that each task sees."""
        own, common = ops.split(weights, [self.num_task_experts], axis=-1)
        mixed = ops.matmul(ops.expand_dims(own, -2), self.by_owner(of_tasks))
        return ops.add(ops.squeeze(mixed, -2), ops.matmul(common, of_shared))
