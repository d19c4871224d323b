"""Experts that all tasks see, and each task trains for itself."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.layers.sharing.customized_gate_control import CustomizedGateControl
from keras_mtl.layers.sharing.gate import Gate
from keras_mtl.layers.sharing.softmax_gate import SoftmaxGate


@keras.saving.register_keras_serializable("keras_mtl")
class STEMGate(CustomizedGateControl):
    """All-forward, task-specific-backward gate: mixes the experts of all tasks.

    $$ y_t = \\sum_{e \\in t \\cup sh} g_t(z_t)_e \\, f_e +
             \\sum_{e \\notin t \\cup sh} g_t(z_t)_e \\, \\mathrm{sg}(f_e), \\qquad
       z_t = x_t + x_{sh} $$

    An expert reads the input of its own stream; `sg` stops the gradient. So a task can
    use what another has learned, and cannot change it: neither its experts nor, where
    the streams are embeddings of each task's own, its embedding.

    Args:
        task_names: List of T strings.
        units: Integer or tuple of integers, the sizes of the layers of one expert.
        task_experts: Integer, the number of experts of each task. Defaults to 1.
        shared_experts: Integer, the number of shared experts. Defaults to 1.
        activation: Activation of all layers of the experts. Defaults to `"relu"`.
        use_bias: Boolean, whether experts have biases. Defaults to `True`.
        gate: A gate. Defaults to `SoftmaxGate(hidden_units=(128, 64), use_bias=True)`.
        kernel_initializer: Initializer of the kernel of one expert. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Dict with one tensor `(B, ..., D)` of the same shape for each task and for
        "shared", or a list of them with the shared one last; or one tensor for all,
        which gets no gradient of a task through another's experts.

    Output shape:
        `(B, ..., units)` for each task: a dict, or a list if the input is one.

    Raises:
        ValueError: If a size is not positive, if a task is called "shared", or if
            inputs differ in shape.

    Example:

    ```python
    item = keras.Input((), dtype="int32")
    streams = {
        name: keras.layers.Embedding(100, 8)(item)
        for name in ("click", "like", "shared")
    }
    h = keras_mtl.layers.STEMGate(["click", "like"], units=16)(streams)
    assert h["like"].shape == (None, 16)
    ```

    Reference:
        Su et al., "STEM: Unleashing the Power of Embeddings for Multi-task
        Recommendation", AAAI 2024, https://arxiv.org/abs/2308.13537
    """

    def __init__(
        self,
        task_names: Sequence[str],
        units: int | Sequence[int],
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
        super().__init__(
            task_names,
            units,
            task_experts,
            shared_experts,
            shared_gate=False,
            activation=activation,
            use_bias=use_bias,
            gate=gate or SoftmaxGate(hidden_units=(128, 64), use_bias=True),
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            **kwargs,
        )

    def gate_size(self) -> int:
        """A task weighs the experts of all tasks and the shared ones."""
        return self.num_experts

    def gate_inputs(self, by_task: Any, shared: Any, repeated: bool) -> Any:
        """The gate of a task reads the sum of its stream and the shared one."""
        return ops.add(by_task, ops.expand_dims(shared, 0) if repeated else shared)

    def mix_tasks(self, of_tasks: Any, of_shared: Any, weights: Any) -> Any:
        """Returns the mixture of all experts; those of other tasks get no gradient."""
        of_all, common = ops.split(weights, [of_tasks.shape[-2]], axis=-1)
        own = np.repeat(np.eye(self.num_tasks), self.num_task_experts, axis=1)
        own = ops.convert_to_tensor(own, self.compute_dtype)
        return ops.add(
            ops.add(
                ops.matmul(of_all * own, of_tasks),
                ops.matmul(of_all * (1 - own), ops.stop_gradient(of_tasks)),
            ),
            ops.matmul(common, of_shared),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["shared_gate"]
        return config
