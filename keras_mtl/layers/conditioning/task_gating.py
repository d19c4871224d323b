"""The multiplicative gate: independent networks in one."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.conditioning.task_descriptor import (
    check_descriptor,
    check_index_range,
    check_task,
    task_indicator,
)
from keras_mtl.layers.wrapped_layer import call_with_mask, mask_after


@keras.saving.register_keras_serializable("keras_mtl")
class TaskGating(keras.layers.Layer):
    """Runs one network for each task and passes on that of the row's task.

    $$ y = \\sum_j 1(z = j) \\, y_j, \\qquad y_j = f_j(x) $$

    With an index or a one-hot descriptor the tasks share nothing: the gradient
    of one task's loss on the parameters of another's network is exactly zero.
    With `gate="softmax"` the gate is soft and learned from any descriptor, such
    as metadata about the task, and the networks are shared by degrees:

    $$ y = \\sum_j \\mathrm{softmax}(W z)_j \\, y_j $$

    All T networks see all rows, so the cost is that of T networks, and a network
    with statistics over the batch (`BatchNormalization`) would take them over
    the rows of the other tasks too. To keep tasks apart in that as well, give
    each its own input and network.

    Args:
        networks: List or dict of T layers or models, with one output tensor of
            the same shape each (of a dict, the order is that of the index), or a
            single one to be copied `num_tasks` times. Copies take its
            configuration, not its weights.
        num_tasks: Integer, the number of tasks T. Needed with a single network,
            otherwise it is the number of `networks`. Defaults to `None`.
        gate: `"indicator"`, or `"softmax"` for a learned soft gate. Defaults to
            `"indicator"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Features of shape `(B, ...)`, as the networks take them.
        task: With `gate="indicator"` an integer index of shape `(B,)` or
            `(B, 1)`, or a one-hot or soft float descriptor of shape `(B, T)`;
            with `gate="softmax"` a float descriptor of shape `(B, dim)`.

    Output shape:
        That of one network.

    Raises:
        ValueError: If `networks` is empty or its number is not `num_tasks`, if
            the networks differ in the shape of their outputs, if `task` has
            another shape or dtype than these, or if an index given as a list or
            NumPy array is out of range. An index in a tensor cannot be checked in
            a compiled step: out of range it is no task, the sum above is empty
            and the output zero.

    Example:

    ```python
    layer = keras_mtl.layers.TaskGating(keras.layers.Dense(8), num_tasks=3)
    x = np.ones((4, 5), "float32")
    y = ops.convert_to_numpy(layer(x, np.array([0, 2, 2, 1])))
    assert np.allclose(y[3], ops.convert_to_numpy(layer.networks[1](x))[3])
    ```
    """

    def __init__(
        self,
        networks: Any,
        num_tasks: int | None = None,
        gate: str = "indicator",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if gate not in ("indicator", "softmax"):
            raise ValueError(
                f'`gate` must be "indicator" or "softmax". Received: {gate!r}'
            )
        self.networks = _one_network_per_task(networks, num_tasks)
        self.keys = list(networks) if isinstance(networks, Mapping) else None
        self.num_tasks = len(self.networks)
        self.gate = gate
        self.gate_map = None
        if gate == "softmax":
            self.gate_map = keras.layers.Dense(
                self.num_tasks, use_bias=False, dtype=self.dtype_policy, name="gate"
            )
        self.supports_masking = True

    def __call__(self, x: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks an index that is not yet a tensor, then calls the layer."""
        if self.gate == "indicator":
            check_index_range(task, self.num_tasks)
        return super().__call__(x, task, *args, **kwargs)

    def build(
        self, x_shape: tuple[int | None, ...], task_shape: tuple[int | None, ...]
    ) -> None:
        """Builds the networks and the soft gate."""
        for network in self.networks:
            if not network.built:
                network.build(tuple(x_shape))
        if self.gate_map is not None:
            self.gate_map.build(tuple(task_shape))

    def call(self, x: Any, task: Any, x_mask: Any = None) -> Any:
        """Returns the gated sum of the networks' outputs."""
        self._check(x, task)
        outputs = [call_with_mask(network, x, x_mask) for network in self.networks]
        _check_outputs(outputs)
        outputs = [ops.cast(output, self.compute_dtype) for output in outputs]
        gates = self._gates(task)
        is_index = "int" in keras.backend.standardize_dtype(task.dtype)
        total = ops.zeros_like(outputs[0])
        for j, output in enumerate(outputs):
            gate = gates[..., j]
            for _ in range(len(output.shape) - len(gate.shape)):
                gate = ops.expand_dims(gate, -1)
            # A selection keeps an infinity in one network out of the others.
            total += ops.where(gate > 0, output, 0) if is_index else gate * output
        return total

    def compute_mask(self, x: Any, previous_mask: Any) -> Any:
        """The mask that the first network makes of that of `x`."""
        if previous_mask is None:
            return None
        return mask_after(self.networks[0], x, previous_mask)

    def compute_output_shape(
        self, x_shape: tuple[int | None, ...], task_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of one network."""
        return tuple(self.networks[0].compute_output_shape(tuple(x_shape)))

    def compute_output_spec(
        self, x: Any, task: Any, x_mask: Any = None
    ) -> keras.KerasTensor:
        """Checks the arguments and the networks and returns the spec."""
        self._check(x, task)
        features = keras.KerasTensor(x.shape, dtype=x.dtype)
        specs = [network.compute_output_spec(features) for network in self.networks]
        _check_outputs(specs)
        return keras.KerasTensor(specs[0].shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        networks = [keras.saving.serialize_keras_object(n) for n in self.networks]
        if self.keys is not None:
            networks = dict(zip(self.keys, networks, strict=True))
        return {
            **super().get_config(),
            "networks": networks,
            "num_tasks": self.num_tasks,
            "gate": self.gate,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TaskGating":
        """Creates the layer, with networks without weights, from its config."""
        networks = keras.saving.deserialize_keras_object(config["networks"])
        return cls(**{**config, "networks": networks})

    def _gates(self, task: Any) -> Any:
        if self.gate_map is None:
            return task_indicator(task, self.num_tasks, self.compute_dtype)
        return ops.softmax(self.gate_map(task), axis=-1)

    def _check(self, x: Any, task: Any) -> None:
        if self.gate_map is None:
            check_task(task, self.num_tasks)
        else:
            check_descriptor(x, task)


def _one_network_per_task(
    networks: Any, num_tasks: int | None
) -> list[keras.layers.Layer]:
    if isinstance(networks, keras.layers.Layer):
        if num_tasks is None or num_tasks < 1:
            raise ValueError(
                "A single network is copied for each task, so `num_tasks` must be a "
                f"positive integer. Received: num_tasks={num_tasks}"
            )
        config = networks.get_config()
        return [
            networks.from_config({**config, "name": f"{networks.name}_{j}"})
            for j in range(num_tasks)
        ]
    if not isinstance(networks, Mapping | Sequence) or isinstance(networks, str):
        raise ValueError(
            "`networks` must be a layer, or a list or dict of layers. "
            f"Received: {networks!r}"
        )
    if isinstance(networks, Mapping):
        networks = networks.values()
    networks = list(networks)
    if not networks or any(
        not isinstance(network, keras.layers.Layer) for network in networks
    ):
        raise ValueError(
            "`networks` must hold one keras.layers.Layer for each task. "
            f"Received: {networks}"
        )
    if len({id(network) for network in networks}) < len(networks):
        raise ValueError(
            "`networks` must hold a different layer for each task: the same one twice "
            f"would be shared. Received: {networks}"
        )
    if num_tasks is not None and num_tasks != len(networks):
        raise ValueError(
            "`num_tasks` must be the number of `networks`. "
            f"Received: num_tasks={num_tasks}, {len(networks)} networks"
        )
    return networks


def _check_outputs(outputs: list[Any]) -> None:
    if any(keras.tree.is_nested(output) for output in outputs):
        raise ValueError(
            "Every network in `networks` must have one tensor as its output. "
            f"Received: outputs {outputs}"
        )
    shapes = [tuple(output.shape) for output in outputs]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "The `networks` must have outputs of one shape. "
            f"Received: output shapes {shapes}"
        )
