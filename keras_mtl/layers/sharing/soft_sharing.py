"""Copies of a layer for each task, held together by a penalty."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_number
from keras_mtl.layers.independent_initializers import with_seeds_of_its_own
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.wrapped_layer import call_with_mask, mask_after

PENALTIES = ("l2", "trace_norm", "tucker")


@keras.saving.register_keras_serializable("keras_mtl")
class SoftSharing(SharingLayer):
    """A copy of a layer for each task, whose parameters are pulled together.

    With the parameters \\( W_t^l \\) of layer l for task t, it adds the loss of `"l2"`,
    `"trace_norm"` or `"tucker"`:

    $$ \\sum_l \\lambda_l \\sum_{s<t} \\| W_s^l - W_t^l \\|_F^2, \\qquad
       \\sum_l \\lambda_l \\big\\| W^l_{(T)} \\big\\|_*, \\qquad
       \\sum_l \\frac{\\lambda_l}{N} \\sum_{n=1}^{N} \\big\\| W^l_{(n)} \\big\\|_* $$

    where \\( W^l_{(T)} \\) has the parameters of each task as a row, and
    \\( W^l_{(n)} \\) is the tensor of all tasks' kernels, unfolded along axis n of N.

    `"l2"` makes tasks alike; a trace norm, the sum of singular values, makes the
    parameters of T tasks combinations of fewer than T, and `"tucker"` does so along
    every axis. Between 0 and a large factor lie independent networks and hard sharing:
    share more where tasks overfit, less where they disturb each other.

    Args:
        layer: A `keras.Layer` or model. It is copied from its config, so every task
            starts with parameters of its own.
        task_names: List of T strings.
        penalty: `"l2"`, over all trainable parameters; `"trace_norm"` or `"tucker"`,
            over kernels, which have two axes or more. Defaults to `"l2"`.
        weight: Float, the factor for every layer; or a dict of factors by the name of
            a layer in `layer`, of which those that are not named have none. Between
            1e-3 and 1e-1 as a rule. Defaults to 1e-3.
        frozen_tasks: Tasks whose copy is not trained, such as one with weights that
            it brought along: it pulls the others. The same as `trainable = False` of
            that entry of `copies`. Defaults to `()`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor that all copies read, or a dict or list with one for each task, of
        whatever shape the layer takes.

    Output shape:
        That of `layer` for each task: a dict, or a list if the input is one.

    Raises:
        ValueError: If `layer` is none, if `penalty` is unknown, if a factor is
            negative or for no layer.

    Example:

    ```python
    trunk = keras.Sequential(
        [
            keras.layers.Dense(32, "relu", name="lower"),
            keras.layers.Dense(16, "relu", name="upper"),
        ]
    )
    inputs = keras.Input((8,))
    h = keras_mtl.layers.SoftSharing(
        trunk, ["a", "b"], weight={"lower": 0.1, "upper": 0.01}
    )(inputs)
    outputs = {t: keras.layers.Dense(1, name=t)(x) for t, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    ```

    Reference:
        Duong et al., "Low Resource Dependency Parsing: Cross-lingual Parameter
        Sharing in a Neural Network Parser", ACL 2015,
        https://aclanthology.org/P15-2139 (L2); Yang and Hospedales, "Trace Norm
        Regularised Deep Multi-Task Learning", ICLR 2017 workshop,
        https://arxiv.org/abs/1606.04038
    """

    keeps_tasks_apart = True
    """With an input for each task an output is made of its own alone."""

    def __init__(
        self,
        layer: keras.layers.Layer,
        task_names: Sequence[str],
        penalty: str = "l2",
        weight: float | Mapping[str, float] = 1e-3,
        frozen_tasks: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        # The penalty is of the parameters as they are; copies cast for themselves.
        super().__init__(task_names, autocast=False, **kwargs)
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                f"`layer` must be a keras.layers.Layer. Received: layer={layer!r}"
            )
        self.penalty = check_choice("penalty", penalty, PENALTIES)
        if isinstance(weight, Mapping):
            self.weight = {
                name: check_number(f"weight[{name!r}]", factor, at_least=0)
                for name, factor in weight.items()
            }
        else:
            self.weight = check_number("weight", weight, at_least=0)
        self._template = keras.saving.serialize_keras_object(layer)
        self.copies = [
            self._copy(task, place) for place, task in enumerate(self.task_names)
        ]
        unknown = [task for task in frozen_tasks if task not in self.task_names]
        if isinstance(frozen_tasks, str) or unknown:
            raise ValueError(
                f"`frozen_tasks` must be a list of tasks, of {self.task_names}. "
                f"Received: frozen_tasks={frozen_tasks!r}"
            )
        for task, copy in zip(self.task_names, self.copies, strict=True):
            if task in frozen_tasks:
                copy.trainable = False

    def task_parts(self) -> list[tuple[keras.layers.Layer, list[str]]]:
        """A copy for each task."""
        return [
            (copy, [name])
            for name, copy in zip(self.task_names, self.copies, strict=True)
        ]

    def build(self, input_shape: Any) -> None:
        """Builds every copy."""
        shapes = self.structure_of(input_shape).values(input_shape)
        for copy, shape in zip(self.copies, shapes, strict=True):
            if not copy.built:
                copy.build(shape)
        self._check_weight()

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the output of each copy, and adds the penalty."""
        structure = self.structure_of(inputs)
        values = structure.values(inputs)
        masks = [None] * len(values) if mask is None else structure.values(mask)
        outputs = [
            call_with_mask(copy, x, m)
            for copy, x, m in zip(self.copies, values, masks, strict=True)
        ]
        for name, stacks in self._stacks_by_layer().items():
            factor = self._factor(name)
            if factor:
                self.add_loss(factor * sum(self._penalty_of(s) for s in stacks))
        return structure.nest(outputs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """For each task the mask that its copy makes of that of its input."""
        if super().compute_mask(inputs, previous_mask) is None:
            return None
        structure = self.structure_of(inputs)
        masks = structure.values(previous_mask)
        return structure.nest(
            [
                mask_after(copy, x, mask)
                for copy, x, mask in zip(
                    self.copies, structure.values(inputs), masks, strict=True
                )
            ]
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each task that of its copy."""
        structure = self.structure_of(input_shape)
        shapes = structure.values(input_shape)
        return structure.nest(
            [
                tuple(copy.compute_output_shape(shape))
                for copy, shape in zip(self.copies, shapes, strict=True)
            ]
        )

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the specs of the copies."""
        structure = self.structure_of(inputs)
        values = structure.values(inputs)
        return structure.nest(
            [
                copy.compute_output_spec(keras.KerasTensor(x.shape, dtype=x.dtype))
                for copy, x in zip(self.copies, values, strict=True)
            ]
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "layer": self._template,
            "penalty": self.penalty,
            "weight": self.weight,
            "frozen_tasks": self._frozen_tasks(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SoftSharing":
        """Creates the layer, without weights, from its config."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})

    def _copy(self, task: str, place: int) -> keras.layers.Layer:
        template = with_seeds_of_its_own(self._template, place)
        copy = keras.saving.deserialize_keras_object(template)
        copy.name = f"{self.name}_{task}"
        return copy

    def _frozen_tasks(self) -> list[str]:
        return [
            task
            for task, copy in zip(self.task_names, self.copies, strict=True)
            if not copy.trainable
        ]

    def _stacks_by_layer(self) -> dict[str, list[Any]]:
        """Returns by layer the parameters of all tasks, each `(T, ...)`."""
        by_copy = [_own_variables(copy) for copy in self.copies]
        found = {}
        for layers in zip(*by_copy, strict=True):
            name = self._name_in_template(layers[0][0])
            stacks = found.setdefault(name, [])
            for variables in zip(*(own for _, own in layers), strict=True):
                if self.penalty == "l2" or len(variables[0].shape) > 1:
                    stacks.append(ops.stack(list(map(_trained_value, variables))))
        return found

    def _name_in_template(self, layer: keras.layers.Layer) -> str:
        if layer is self.copies[0]:
            return self._template["config"].get("name", layer.name)
        return layer.name

    def _factor(self, name: str) -> float:
        return (
            self.weight.get(name, 0) if isinstance(self.weight, dict) else self.weight
        )

    def _check_weight(self) -> None:
        if isinstance(self.weight, float):
            return
        known = list(self._stacks_by_layer())
        unknown = [name for name in self.weight if name not in known]
        if unknown:
            raise ValueError(
                f"`weight` must have names of layers with parameters, of {known}. "
                f"Received: {unknown}"
            )

    def _penalty_of(self, stack: Any) -> Any:
        if self.penalty == "l2":
            # The sum over pairs is T times that of the distances to the mean.
            away = stack - ops.mean(stack, axis=0, keepdims=True)
            return self.num_tasks * ops.sum(away * away)
        if self.penalty == "trace_norm":
            return trace_norm(ops.reshape(stack, (self.num_tasks, -1)))
        axes = range(len(stack.shape))
        unfolded = [
            ops.reshape(ops.moveaxis(stack, axis, 0), (stack.shape[axis], -1))
            for axis in axes
        ]
        return sum(map(trace_norm, unfolded)) / len(stack.shape)


def trace_norm(matrix: Any) -> Any:
    """Returns the sum of the singular values of a matrix of float32.

    It is that of the square roots of the eigenvalues of the smaller Gramian, and its
    gradient `U V^T` is made of them: singular values under 3e-4 of the largest, which
    are rounding there, have a gradient of 0.
    """
    if matrix.shape[0] > matrix.shape[1]:
        matrix = ops.transpose(matrix)
    fixed = ops.stop_gradient(matrix)
    size = ops.maximum(ops.max(ops.abs(fixed)), 1e-30)
    fixed = fixed / size
    values, vectors = ops.eigh(ops.matmul(fixed, ops.transpose(fixed)))
    roots = ops.sqrt(ops.maximum(values, 0.0))
    there = roots > 3e-4 * ops.max(roots)
    inverse = ops.where(there, 1 / ops.where(there, roots, 1.0), 0.0)
    polar = ops.matmul(
        ops.matmul(vectors * inverse, ops.transpose(vectors)), fixed
    )  # U V^T
    gradient = ops.stop_gradient(polar)
    product = ops.sum(gradient * matrix)
    return product + ops.stop_gradient(ops.sum(roots) * size - product)


def _own_variables(
    layer: keras.layers.Layer,
) -> list[tuple[keras.layers.Layer, list[keras.Variable]]]:
    """Returns the layers in a layer with the parameters of each itself.

    They include frozen ones, so that those of all copies go together.
    """
    found = []
    for part in layer._flatten_layers(include_self=True, recursive=True):
        if part._trainable_variables:
            found.append((part, list(part._trainable_variables)))
    return found


def _trained_value(variable: keras.Variable) -> Any:
    """Returns the value in float32, without a gradient if the variable is frozen."""
    value = ops.cast(variable, "float32")
    return value if variable.trainable else ops.stop_gradient(value)
