"""A forward pass in stages on JAX."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras

from keras_mtl.engine.forward import head_copy
from keras_mtl.engine.gradient_plan import GradientPlan
from keras_mtl.engine.stages import (
    Backward,
    OuterProduct,
    Stages,
    add_to,
    gradients_by_key,
)
from keras_mtl.engine.tensor_masks import TensorMasks


def copy_of(tensor: Any) -> Any:
    """Returns the tensor itself: what has a gradient of its own is an argument."""
    return tensor


class StagedForward:
    """A forward pass in stages, each of them differentiated by itself.

    Args:
        model: The model.
        trainable: Values of its trainable variables.
        non_trainable: Values of the others.
        metrics: Values of those of metrics.
        in_rows: Whether gradients by the kernels of dense layers may be left as
            products of inputs and cotangents, where there are few rows.
        plan: The sorted variables and the stages, if not those of the model's step.

    Attributes:
        non_trainable: Their values after the pass.
        metrics: Their values after the pass.
        extra: The sum of `add_loss` and regularisers.
        kept: What the objective returned.
        y_pred: The predictions.
    """

    def __init__(
        self,
        model,
        trainable,
        non_trainable,
        metrics,
        in_rows: bool = False,
        plan: tuple[GradientPlan, Stages] | None = None,
    ) -> None:
        self.model = model
        self.in_rows = in_rows
        self.trainable = trainable
        self.before = non_trainable
        self.non_trainable = non_trainable
        self.metrics = metrics
        self.plan, self.stages = plan or model._gradient_plan
        self._pulls: list[Callable[..., Any]] = []
        self._tensors: dict[Any, Any] = {}
        self._masks: dict[Any, Any] = {}
        self._extras: list[Any] = []

    def _scope(self, positions, values) -> keras.StatelessScope:
        """A scope with other values of some of the trainable variables."""
        trainable = list(self.trainable)
        for position, value in zip(positions, values, strict=True):
            trainable[position] = value
        mapping = [
            *zip(self.model.trainable_variables, trainable, strict=True),
            *zip(self.model.non_trainable_variables, self.non_trainable, strict=True),
            *zip(self.model.metrics_variables, self.metrics, strict=True),
        ]
        return keras.StatelessScope(state_mapping=mapping, collect_losses=True)

    def _masked(self, key, value):
        """Returns a tensor with the mask that it lost on its way out of a stage."""
        return _tensor_masks.attach(value, self._masks.get(key))

    def run_trunk(self, x: Any) -> None:
        """Runs all stages of the trunk."""
        with self._scope((), ()):
            self._tensors.update(self.stages.enter(x))
        for index, stage in enumerate(self.stages.trunk):
            self._run_stage(x, stage, self.plan.of_stages[index])

    def _run_stage(self, x, stage, positions) -> None:
        if stage.again:
            # It runs the stage before it once more, which XLA sees and does once.
            self.non_trainable = self.before
            self._extras.clear()

        dense = self._dense_with_few_rows(x, stage)

        def run(values, floating, biases_of_rows):
            given = {
                **self._tensors,
                **dict(zip(stage.floating, floating, strict=True)),
            }
            scope = self._scope(positions, values)
            for layer, biases in zip(dense, biases_of_rows, strict=True):
                # A value of another shape, which the mapping would refuse.
                scope.add_update((layer.bias, biases))
            with scope:
                given = [self._masked(key, given[key]) for key in stage.inputs]
                if dense:
                    made, read = stage.run_watched(x, given)
                else:
                    made, read = stage.run(x, given), []
                extras = [jnp.sum(loss) for loss in scope.losses]
            made = dict(zip(stage.outputs, made, strict=True))
            smooth = {k: v for k, v in made.items() if _is_floating(v)}
            masks = {k: _tensor_masks.read(v) for k, v in smooth.items()}
            rest = {k: v for k, v in made.items() if k not in smooth}
            extra = sum(extras, jnp.zeros(())) if extras else None
            after = values_after(scope, self.model.non_trainable_variables)
            return (smooth, extra), (rest, masks, after, read)

        (smooth, extra), vjp, (rest, masks, after, read) = jax.vjp(
            run,
            [self.trainable[position] for position in positions],
            [self._tensors[key] for key in stage.floating],
            [
                jnp.broadcast_to(self.trainable[self._position(layer.bias)], shape)
                for layer, shape in dense.items()
            ],
            has_aux=True,
        )
        self._tensors.update(smooth)
        self._tensors.update(rest)
        self._masks.update(masks)
        self.non_trainable = after
        self._extras.append(extra)

        def pull(given, wanted, through, extra_gradient=None):
            cotangents = {
                k: given[k] if k in given else jnp.zeros_like(v)
                for k, v in smooth.items()
            }
            if extra is not None and extra_gradient is None:
                extra_gradient = jnp.zeros_like(extra)
            by_value, by_floating, by_row = vjp((cotangents, extra_gradient))
            by_position = dict(zip(positions, by_value, strict=True))
            read_by = dict(zip(stage.dense, read, strict=False))
            for layer, cotangent in zip(dense, by_row, strict=True):
                kernel, bias = map(self._position, (layer.kernel, layer.bias))
                by_position[kernel] = OuterProduct(read_by[layer], cotangent)
                by_position[bias] = jnp.sum(cotangent, axis=0)
            by_key = dict(zip(stage.floating, by_floating, strict=True))
            return {p: by_position[p] for p in wanted}, {k: by_key[k] for k in through}

        self._pulls.append(pull)

    def _dense_with_few_rows(self, x, stage) -> dict[Any, tuple[int, int]]:
        """Returns dense layers of a stage with the shapes of their outputs.

        With R rows, products of pairs of T gradients by a kernel `(n, m)` take
        `R m (T + R)` operations in the space of rows, and `n m (T + R)` otherwise.
        """
        if not (self.in_rows and stage.dense):
            return {}

        def read_by_dense():
            with self._scope((), ()):
                given = [self._masked(k, self._tensors[k]) for k in stage.inputs]
                return stage.run_watched(x, given)[1]

        return {
            layer: (inputs.shape[0], layer.units)
            for layer, inputs in zip(
                stage.dense, jax.eval_shape(read_by_dense), strict=True
            )
            if 2 * inputs.shape[0] <= inputs.shape[1]
        }

    def _position(self, variable: Any) -> int:
        return index_of(variable, self.model.trainable_variables)

    def differentiate_heads(self, x, objective, unit) -> Backward:
        """Runs the heads and an objective, and differentiates its sum.

        Args:
            x: Inputs of the model.
            objective: Called with the predictions; returns a list whose last entry
                is to be summed.
            unit: Factor of the sum.
        """
        heads, positions = self.stages.heads, self.plan.of_heads
        differentiated = [bool(item.tasks) for item in heads.inputs]

        def spread(values):
            found = iter(values)
            return [next(found) if there else None for there in differentiated]

        def run(copies, values):
            scope = self._scope(positions, values)
            with scope:
                read = [
                    self._tensors[item.key]
                    if copy is None
                    else self._masked(item.key, copy)
                    for item, copy in zip(heads.inputs, spread(copies), strict=True)
                ]
                y_pred = heads.run(read)
                extras = [jnp.sum(loss) for loss in scope.losses]
                kept = objective(y_pred)
            extra = sum(extras, jnp.zeros(())) if extras else None
            states = (
                values_after(scope, self.model.non_trainable_variables),
                values_after(scope, self.model.metrics_variables),
            )
            return (jnp.sum(kept[-1]) * unit, extra), (kept, y_pred, states)

        copies = [
            head_copy(item, self._tensors[item.key], copy_of)
            for item, there in zip(heads.inputs, differentiated, strict=True)
            if there
        ]
        (_, extra), vjp, (self.kept, self.y_pred, states) = jax.vjp(
            run, copies, [self.trainable[p] for p in positions], has_aux=True
        )
        self.non_trainable, self.metrics = states
        self._extras.append(extra)

        def pull(gradient, extra_gradient):
            if extra is None:
                extra_gradient = None
            by_copy, by_value = vjp((gradient, extra_gradient))
            by_key = gradients_by_key(
                heads.inputs,
                spread(by_copy),
                len(self.model.task_names),
                functools.partial(self.model._by_rows, x),
            )
            return by_key, dict(zip(positions, by_value, strict=True))

        self._pull_heads = pull
        by_key, by_position = pull(jnp.ones(()), jnp.zeros(()))
        return Backward(self.stages, self._pulls, by_key, by_position)

    @property
    def extra(self) -> Any:
        """The sum of `add_loss` and regularisers."""
        return sum(
            (e for e in self._extras if e is not None), self._regularisation()[0]
        )

    def _regularisation(self) -> tuple[Any, list[Any]]:
        """Returns the losses of weight regularisers, and their gradients."""

        def run(values):
            with self._scope(range(len(values)), values):
                losses = [jnp.sum(loss) for loss in self.model.losses]
            return sum(losses, jnp.zeros(())), bool(losses)

        (loss, there), gradients = jax.value_and_grad(run, has_aux=True)(self.trainable)
        return loss, gradients if there else []

    def gradients_of_extras(self, unit: Any) -> dict[int, Any]:
        """Returns the gradients of `add_loss` and regularisers by position."""
        found = {p: g * unit for p, g in enumerate(self._regularisation()[1])}
        if all(extra is None for extra in self._extras):
            return found
        by_key: dict[Any, Any] = {}
        if self._extras[-1] is not None:
            by_task, by_position = self._pull_heads(jnp.zeros(()), unit)
            add_to(found, by_position)
            for cotangents in by_task:
                add_to(by_key, cotangents)
        for index in reversed(range(len(self._pulls))):
            stage, positions = self.stages.trunk[index], self.plan.of_stages[index]
            extra = self._extras[index]
            given = {k: by_key[k] for k in stage.outputs if k in by_key}
            if given or extra is not None:
                gradient = None if extra is None else unit.astype(extra.dtype)
                by_position, further = self._pulls[index](
                    given, positions, stage.floating, gradient
                )
                add_to(found, by_position)
                add_to(by_key, further)
        return found


_tensor_masks = TensorMasks()


def values_after(scope: keras.StatelessScope, variables: Any) -> list[Any]:
    """Returns the values that variables have in a scope."""
    return [scope.get_current_value(variable) for variable in variables]


def _is_floating(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)


def index_of(variable: Any, variables: list[Any]) -> int:
    """Returns the index of a variable, which `list.index` would compare by value."""
    return next(i for i, other in enumerate(variables) if other is variable)
