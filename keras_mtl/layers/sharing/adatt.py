"""Adaptive task-to-task fusion."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.sharing.expert_streams import ExpertStreams
from keras_mtl.layers.sharing.gate import Gate


@keras.saving.register_keras_serializable("keras_mtl")
class AdaTT(ExpertStreams):
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
        if shared_gate and not shared_experts:
            raise ValueError(
                "`shared_gate` gives the input of shared experts of a next layer: it "
                "needs `shared_experts`. Received: shared_experts=0"
            )
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
        self.own = None
        if self.num_task_experts > 1:
            self.own = _OwnWeights(
                self.num_tasks,
                self.num_task_experts,
                dtype=self.dtype_policy,
                name=f"{self.name}_own",
            )

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """Experts, gates and the weights of the residual."""
        parts = super().task_parts()
        return parts if self.own is None else [*parts, (self.own, None)]

    def mix_tasks(self, of_tasks: Any, of_shared: Any, weights: Any) -> Any:
        """Returns the mixture of all experts, plus each task's own."""
        everything = of_tasks
        if of_shared is not None:
            everything = ops.concatenate([of_tasks, of_shared], axis=-2)
        residual = of_tasks
        if self.own is not None:
            own = ops.expand_dims(ops.cast(self.own.weight, self.compute_dtype), -1)
            residual = ops.sum(own * self.by_owner(of_tasks), axis=-2)
        return ops.add(ops.matmul(weights, everything), residual)


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
