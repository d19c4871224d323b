"""Progressive layered extraction: levels of customized gate control."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mtl.layers.independent_initializers import independent_initializers
from keras_mtl.layers.sharing.customized_gate_control import CustomizedGateControl
from keras_mtl.layers.sharing.expert_streams import SHARED
from keras_mtl.layers.sharing.gate import Gate, get_gate
from keras_mtl.layers.sharing.sharing_layer import SharingLayer


@keras.saving.register_keras_serializable("keras_mtl")
class ProgressiveLayeredExtraction(SharingLayer):
    """Levels of task experts and shared experts, whose streams part by and by (PLE).

    $$ x^{(l+1)}_t = \\sum_{e \\in t \\cup sh} g^{(l)}_t(x^{(l)}_t)_e f^{(l)}_e, \\qquad
       x^{(l+1)}_{sh} = \\sum_e g^{(l)}_{sh}(x^{(l)}_{sh})_e f^{(l)}_e $$

    Every level is a `CustomizedGateControl`; all but the last have the gate of the
    shared stream. One level is CGC.

    Args:
        task_names: List of T strings.
        units: List with the size of the experts of each level: an integer, or a tuple
            for experts of several layers.
        task_experts: Integer, the number of experts of each task, in every level.
            Defaults to 1.
        shared_experts: Integer, the number of shared experts. Defaults to 1.
        activation: Activation of the experts. Defaults to `"relu"`.
        use_bias: Boolean, whether experts have biases. Defaults to `True`.
        gate: A `SoftmaxGate` or `DSelectK`, which every gate is a copy of. Defaults to
            `SoftmaxGate()`.
        kernel_initializer: Initializer of the kernel of one expert. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ..., D)` for all streams, or a dict with one of the same shape
        for each task and "shared", or a list of them with the shared one last.

    Output shape:
        `(B, ..., units[-1])` for each task: a dict, or a list if the input is one.

    Raises:
        ValueError: If there is no level, if a size is not positive, or if a task is
            called "shared".

    Example:

    ```python
    inputs = keras.Input((64,))
    h = keras_mtl.layers.ProgressiveLayeredExtraction(
        ["click", "like"], units=[64, 32], task_experts=2, shared_experts=2
    )(inputs)
    outputs = {t: keras.layers.Dense(1, "sigmoid", name=t)(x) for t, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    assert model(np.ones((4, 64)))["like"].shape == (4, 1)
    ```

    Reference:
        Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020,
        https://doi.org/10.1145/3383313.3412236
    """

    extra_keys = (SHARED,)

    def __init__(
        self,
        task_names: Sequence[str],
        units: Sequence[int | Sequence[int]],
        task_experts: int = 1,
        shared_experts: int = 1,
        activation: Any = "relu",
        use_bias: bool = True,
        gate: Gate | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        if isinstance(units, int) or not units:
            raise ValueError(
                "`units` must be a list with the size of each level. "
                f"Received: units={units!r}"
            )
        template = get_gate(gate)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        initializers = independent_initializers(self.kernel_initializer, len(units))
        self.levels = [
            CustomizedGateControl(
                self.task_names,
                size,
                task_experts,
                shared_experts,
                level < len(units) - 1,
                activation,
                use_bias,
                # A level takes two places: of its gate, and of the shared one.
                template.copy(f"{self.name}_gate_{level}", 2 * level),
                initializers[level],
                bias_initializer,
                kernel_regularizer,
                dtype=self.dtype_policy,
                name=f"{self.name}_level_{level}",
            )
            for level, size in enumerate(units)
        ]
        if len(self.levels) > 1:
            # What these gates make meets no other task in the last level.
            self.levels[-2].gate.stacked_by_task = True

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """Experts and gates of all levels."""
        return [part for level in self.levels for part in level.task_parts()]

    def inputs_behind(self, inputs: Any, index: int) -> list[int]:
        """Returns the places of the inputs that an output trains."""
        if len(self.levels) == 1:
            return self.levels[0].inputs_behind(inputs, index)
        return list(range(len(keras.tree.flatten(inputs))))

    def build(self, input_shape: Any) -> None:
        """Builds all levels."""
        for level in self.levels:
            if not level.built:
                level.build(input_shape)
            input_shape = level.compute_output_shape(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the output of each task."""
        for level in self.levels:
            outputs = level(inputs, mask=mask)
            mask = level.compute_mask(inputs, mask)
            inputs = outputs
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each task that of its input, with the last level's `units`."""
        for level in self.levels:
            input_shape = level.compute_output_shape(input_shape)
        return input_shape

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """Checks the inputs and returns the specs of the outputs."""
        return super().compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = self.levels[0].get_config()
        del config["shared_gate"]
        return {
            **config,
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "units": [level.task_experts.layer_units for level in self.levels],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ProgressiveLayeredExtraction":
        """Creates the layer, without weights, from its config."""
        gate = keras.saving.deserialize_keras_object(config["gate"])
        return cls(**{**config, "gate": gate})
