"""Multi-gate mixture of experts."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.conditioning.multi_head import MultiHead
from keras_mtl.layers.sharing.experts import LayerExperts
from keras_mtl.layers.sharing.gate import Gate, get_gate
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import masks_of, same_shape


@keras.saving.register_keras_serializable("keras_mtl")
class MixtureOfExperts(SharingLayer):
    """Mixes the outputs of experts for each task by a gate of the task's own (MMoE).

    $$ y_t = \\sum_e g_t(x)_e \\, f_e(x) $$

    All tasks share the experts; how much of each a task takes, its gate decides for
    every row. With one expert it is hard sharing. Dense experts are held in stacked
    kernels and computed as one batched contraction.

    A gate can collapse: it ends with one expert, often the same for all tasks. The
    gate's `dropout` and `load_balance` are against it, `MultiTaskModel` logs
    `<task>_gate_entropy` and `<task>_gate_top_share` by which it is seen, and
    `layer.gate.utilization` has the mean weight of every expert for every task.

    Args:
        experts: Integer, the number E of dense experts of size `units`; or a list of
            E layers or models of one output shape, for anything else; a list of
            layers is an expert in which they follow each other.
        task_names: List of T strings, the keys of the outputs.
        units: Integer or tuple of integers, the sizes of the layers of one dense
            expert. Defaults to `None`, for experts that are layers.
        activation: Activation of all layers of dense experts. Defaults to `"relu"`.
        use_bias: Boolean, whether dense experts have biases. Defaults to `True`.
        expert_dropout: Float, the part of the experts whose output is set to zero in
            training, for each row and for all tasks alike; the others are scaled by
            `1 / (1 - expert_dropout)`, which keeps the expectation. Defaults to 0.
        gate: A `SoftmaxGate` or `DSelectK`. Defaults to `SoftmaxGate()`.
        heads: A `MultiHead` for the same tasks, which reads the mixtures; the outputs
            are then those of the heads. For many tasks: the mixtures are not taken
            apart between the two, and heads of one unit are applied to the experts
            before the mixture, \\( \\sum_e g_{te} (f_e v_t) \\), which is the same and
            several times as fast. Defaults to `None`.
        kernel_initializer: Initializer of the kernel of one dense expert; each is
            drawn by itself. Defaults to `"glorot_uniform"`.
        bias_initializer: Initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels of dense experts. Defaults to
            `None`.
        seed: Seed of `expert_dropout`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ..., D)`, which all experts and gates read; or a dict or list
        with one of the same shape for each task, as from another layer of this kind:
        then task t's gate and the experts read its own, and the output of task t is
        \\( \\sum_e g_t(x_t)_e f_e(x_t) \\). Gates of dense experts weigh every
        position by itself; those of other experts read the mean over the inner axes.

    Output shape:
        `(B, ..., units)` for each task, a dict, or a list if the input is one; with
        `heads` of their `units`.

    Raises:
        ValueError: If a size is not positive, if experts or inputs differ in shape.

    Example:

    ```python
    inputs = keras.Input((64,))
    h = keras_mtl.layers.MixtureOfExperts(8, ["click", "like"], units=(32,))(inputs)
    outputs = {t: keras.layers.Dense(1, "sigmoid", name=t)(x) for t, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile("adam", loss="binary_crossentropy")
    y = {"click": np.ones(16), "like": np.zeros(16)}
    logs = model.fit(np.ones((16, 64)), y, verbose=0).history
    assert 0 <= logs["click_gate_entropy"][0] <= 1
    ```

    Reference:
        Ma et al., "Modeling Task Relationships in Multi-task Learning with
        Multi-gate Mixture-of-Experts", KDD 2018,
        https://doi.org/10.1145/3219819.3220007
    """

    keeps_tasks_apart = True
    """With an input for each task an output is made of its own alone."""

    def __init__(
        self,
        experts: int | Sequence[keras.layers.Layer],
        task_names: Sequence[str],
        units: int | Sequence[int] | None = None,
        activation: Any = "relu",
        use_bias: bool = True,
        expert_dropout: float = 0.0,
        gate: Gate | None = None,
        heads: MultiHead | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        self.expert_dropout = check_number("expert_dropout", expert_dropout, at_least=0)
        if self.expert_dropout >= 1:
            raise ValueError(
                "`expert_dropout` must be less than 1. "
                f"Received: expert_dropout={expert_dropout}"
            )
        self.seed = seed
        self.seed_generator = (
            keras.random.SeedGenerator(seed) if self.expert_dropout else None
        )
        self.gate = get_gate(gate)
        self._own_layers = isinstance(experts, list | tuple)
        if self._own_layers:
            experts = check_layers(experts, units)
            self.experts = LayerExperts(
                experts, dtype=self.dtype_policy, name=f"{self.name}_experts"
            )
        else:
            self.experts = StackedDense(
                check_count("experts", experts),
                check_units(units),
                activation,
                activation,
                use_bias,
                kernel_initializer,
                bias_initializer,
                kernel_regularizer,
                inputs_first=True,
                dtype=self.dtype_policy,
                name=f"{self.name}_experts",
            )
        self.gate.set_size(self.num_experts, self.task_names)
        self.heads = self._check_heads(heads)

    @property
    def num_experts(self) -> int:
        """Number of experts, E."""
        if self._own_layers:
            return len(self.experts.layers)
        return self.experts.num_stacks

    def task_parts(self) -> list[tuple[keras.layers.Layer, None]]:
        """The experts, which all tasks share, the gates and the heads."""
        parts = [self.experts, self.gate, self.heads]
        return [(part, None) for part in parts if part is not None]

    def build(self, input_shape: Any) -> None:
        """Builds experts and gates."""
        shape = same_shape(self.structure_of(input_shape), input_shape)
        if not self.experts.built:
            self.experts.build(shape)
        if not self.gate.built:
            self.gate.build((*shape[:1], *shape[-1:]))
        if self.heads is not None and not self.heads.built:
            self.heads.build(self._mixture_shape(shape))

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Returns the mixture of each task."""
        structure = self.structure_of(inputs)
        if structure.is_one:
            outputs = self._mix_one(inputs, mask, training)
        else:
            masks = masks_of(structure, inputs, mask)
            stacked = ops.stack(structure.values(inputs))
            mixed = self._mix_each(stacked, masks, training)
            outputs = self._with_heads(mixed)
        return structure.nest(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each task that of one expert."""
        structure = self.structure_of(input_shape)
        shape = self._mixture_shape(same_shape(structure, input_shape))
        if self.heads is not None:
            shape = (*shape[:-1], self.heads.units)
        return structure.nest([shape] * self.num_tasks)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """For each task that of its input, if experts are dense."""
        if self._own_layers:
            return None
        return super().compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {
            **super().get_config(),
            "expert_dropout": self.expert_dropout,
            "gate": keras.saving.serialize_keras_object(self.gate),
            "heads": keras.saving.serialize_keras_object(self.heads),
            "seed": self.seed,
        }
        if self._own_layers:
            config["experts"] = [
                keras.saving.serialize_keras_object(e) for e in self.experts.layers
            ]
            return config
        dense = self.experts.get_dense_config()
        del dense["hidden_activation"]
        return {
            **config,
            **dense,
            "experts": self.num_experts,
            "units": self.experts.layer_units,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MixtureOfExperts":
        """Creates the layer, without weights, from its config."""
        experts = config["experts"]
        if isinstance(experts, list):
            experts = [keras.saving.deserialize_keras_object(e) for e in experts]
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("gate", "heads")
        }
        return cls(**{**config, **parts, "experts": experts})

    def _check_heads(self, heads: Any) -> MultiHead | None:
        """Refuses heads that are no `MultiHead`, or of other tasks."""
        if heads is None:
            return None
        if not isinstance(heads, MultiHead):
            raise ValueError(
                "`heads` must be a keras_mtl.layers.MultiHead; other heads read the "
                f"outputs of this layer. Received: heads={heads!r}"
            )
        if heads.task_names != self.task_names:
            raise ValueError(
                f"`heads` must be for the tasks {self.task_names}, in this order. "
                f"Received: heads for {heads.task_names}"
            )
        return heads

    def _mixture_shape(self, shape: Any) -> tuple[int | None, ...]:
        """Returns the shape of a mixture, of the shape of an input."""
        if self._own_layers:
            return self.experts.output_shape_of(shape)
        return (*shape[:-1], self.experts.layer_units[-1])

    def _with_heads(self, mixed: list[Any]) -> list[Any]:
        """Returns what the heads, if there are any, make of the mixtures."""
        return mixed if self.heads is None else list(self.heads(mixed).values())

    def _mix_one(self, x: Any, mask: Any, training: bool | None) -> list[Any]:
        if not self._own_layers:
            outputs = self.experts.compute_stacks(x)
            outputs = self._drop(outputs, len(outputs.shape) - 2, training)
            weights = self.gate(x, mask=mask, training=training)
            if self.heads is not None:
                return list(self.heads(outputs, mixture=weights).values())
            return ops.unstack(ops.matmul(weights, outputs), self.num_tasks, axis=-2)
        outputs = self._drop(self.experts(x, mask=mask), 1, training)
        weights = self.gate(_mean_over_inner_axes(x, mask), training=training)
        inner = ops.shape(outputs)[2:]
        flat = ops.reshape(outputs, (-1, self.num_experts, math.prod(inner)))
        mixed = ops.unstack(ops.matmul(weights, flat), self.num_tasks, axis=1)
        return self._with_heads([ops.reshape(y, (-1, *inner)) for y in mixed])

    def _mix_each(self, x: Any, masks: Any, training: bool | None) -> list[Any]:
        """Mixes for tasks with inputs of their own, `(T, B, ...)`."""
        if not self._own_layers:
            outputs = self.experts.compute_stacks(x)
            outputs = self._drop(outputs, len(outputs.shape) - 2, training, True)
            by_position = None if masks is None else ops.stack(masks, axis=-1)
            weights = self.gate(x, repeated=True, mask=by_position, training=training)
            weights = ops.expand_dims(ops.moveaxis(weights, -2, 0), -2)
            return ops.unstack(
                ops.squeeze(ops.matmul(weights, outputs), -2), self.num_tasks
            )
        rows = ops.reshape(x, (-1, *x.shape[2:]))
        of_rows = None if masks is None else ops.concatenate(masks, axis=0)
        outputs = self.experts(rows, mask=of_rows)
        inner = ops.shape(outputs)[2:]
        outputs = ops.reshape(outputs, (self.num_tasks, -1, self.num_experts, *inner))
        outputs = self._drop(outputs, 2, training, tasks_first=True)
        means = _mean_over_inner_axes(rows, of_rows)
        means = ops.reshape(means, (self.num_tasks, -1, x.shape[-1]))
        weights = self.gate(means, repeated=True, training=training)
        weights = ops.reshape(ops.moveaxis(weights, 1, 0), (-1, 1, self.num_experts))
        flat = ops.reshape(outputs, (-1, self.num_experts, math.prod(inner)))
        mixed = ops.reshape(ops.matmul(weights, flat), (self.num_tasks, -1, *inner))
        return ops.unstack(mixed, self.num_tasks)

    def _drop(
        self,
        outputs: Any,
        axis: int,
        training: bool | None,
        tasks_first: bool = False,
    ) -> Any:
        """Sets outputs of experts to zero at random and scales the others.

        Args:
            outputs: Outputs of the experts.
            axis: The axis of the experts; each entry of those before it has a draw.
            training: Whether the model is trained.
            tasks_first: Whether axis 0 runs over the tasks, which have one draw.
        """
        if not training or not self.expert_dropout:
            return outputs
        shape = [
            size if index <= axis else 1
            for index, size in enumerate(ops.shape(outputs))
        ]
        if tasks_first:
            shape[0] = 1
        drawn = keras.random.uniform(shape, seed=self.seed_generator)
        keep = ops.cast(drawn >= self.expert_dropout, outputs.dtype)
        return outputs * keep / (1 - self.expert_dropout)


def check_units(units: Any) -> tuple[int, ...]:
    """Returns the sizes of the layers of an expert.

    Raises:
        ValueError: If there is none, or one is not positive.
    """
    sizes = tuple(units) if isinstance(units, list | tuple) else (units,)
    if not sizes or units is None:
        raise ValueError(
            "Dense experts need `units`, a size or a tuple of sizes. "
            f"Received: units={units!r}"
        )
    return tuple(check_count("units", size) for size in sizes)


def check_layers(experts: Sequence[Any], units: Any) -> list[keras.layers.Layer]:
    """Returns experts that are layers; lists of layers are put in one.

    Raises:
        ValueError: If there is none, if one is no layer, or if one comes twice.
    """
    if units is not None:
        raise ValueError(
            "`units` is the size of dense experts: with layers as experts it has no "
            f"meaning. Received: units={units!r}, experts={experts!r}"
        )
    experts = [
        keras.Sequential(expert) if isinstance(expert, list | tuple) else expert
        for expert in experts
    ]
    if not experts or not all(isinstance(e, keras.layers.Layer) for e in experts):
        raise ValueError(
            "`experts` must be a number, or a list of layers with one or more. "
            f"Received: experts={experts!r}"
        )
    if len({id(expert) for expert in experts}) < len(experts):
        raise ValueError(
            "`experts` must not hold a layer twice: it would be one expert. "
            f"Received: experts={experts!r}"
        )
    return experts


def _mean_over_inner_axes(x: Any, mask: Any) -> Any:
    axes = tuple(range(1, len(x.shape) - 1))
    if not axes:
        return x
    if mask is None:
        return ops.mean(x, axis=axes)
    missing = len(x.shape) - len(mask.shape)
    mask = ops.reshape(mask, (*ops.shape(mask), *[1] * missing))
    mask = ops.cast(ops.broadcast_to(mask, ops.shape(x)), x.dtype)
    return ops.sum(x * mask, axis=axes) / ops.maximum(ops.sum(mask, axis=axes), 1)
