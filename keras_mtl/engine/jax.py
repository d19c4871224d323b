"""The training step on JAX."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_mtl.engine.gradient_plan import aggregated_gradients
from keras_mtl.engine.packing import (
    PackedFunctions,
    pack_logs,
    unpack_batch,
    unpack_logs,
)


def num_replicas() -> int:
    """Returns 1: a step on JAX sees the global batch on any number of devices."""
    return 1


def sum_over_replicas(tensor: Any) -> Any:
    """Returns the tensor itself, which is global."""
    return tensor


def snapshot(tensor: Any) -> Any:
    """Returns the tensor itself, which no later value of a variable can change."""
    return jnp.asarray(tensor)


def _packing(step: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    def packing(state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        logs, state = step(state, unpack_batch(data))
        return pack_logs(logs), state

    return packing


def _unpacking(function: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    def unpacking(state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        logs, state = function(state, data)
        return unpack_logs(logs, _numbers), state

    return unpacking


def _numbers(vector: Any) -> list["_Number"]:
    """Returns numbers of a vector without a computation on the device for each."""
    numbers = _Numbers(vector)
    return [_Number(numbers, index) for index in range(len(vector))]


class _Numbers:
    """A vector on the device, fetched once, and only if one of its numbers is read."""

    def __init__(self, vector: Any) -> None:
        self.vector = vector

    @functools.cached_property
    def values(self) -> np.ndarray:
        return np.asarray(self.vector)


class _Number:
    """One number of a vector; Keras makes it a float before a callback sees it."""

    __slots__ = ("index", "numbers")

    def __init__(self, numbers: _Numbers, index: int) -> None:
        self.numbers = numbers
        self.index = index

    def __float__(self) -> float:
        return float(self.numbers.values[self.index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numbers.values[self.index], dtype=dtype)


class TrainStep(PackedFunctions):
    """Steps of `MultiTaskModel`: Keras's own, unless the weighting wants more."""

    _packing = staticmethod(_packing)
    _unpacking = staticmethod(_unpacking)

    def train_step(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """Trains on one batch."""
        with self._keep_masks():
            if self.aggregator is not None:
                return self._step_with_aggregation(state, data)
            if self.weighting.needs_gradient_norms:
                return self._step_with_gradient_norms(state, data)
            if self.weighting.needs_losses_after_step:
                return self._step_with_losses_after(state, data)
            return super().train_step(state, data)

    def test_step(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """Evaluates one batch."""
        logs, state = super().test_step(state, data)
        return self._without_weights(logs), state

    def _step_with_aggregation(
        self, state: Any, data: Any
    ) -> tuple[dict[str, Any], Any]:
        trainable, non_trainable, optimizer_state, metrics = state
        trainable = list(trainable)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        optimizer_scope = list(
            zip(self.optimizer.variables, optimizer_state, strict=True)
        )
        with keras.StatelessScope(state_mapping=optimizer_scope):
            unit = self.optimizer.scale_loss(jnp.ones(()))

        def scope_of(trainable, non_trainable):
            return [
                *zip(self.trainable_variables, trainable, strict=True),
                *zip(self.non_trainable_variables, non_trainable, strict=True),
                *zip(self.metrics_variables, metrics, strict=True),
            ]

        def moved(scope, variables):
            return [scope.get_current_value(variable) for variable in variables]

        structure = []

        def predict(trainable):
            scope = keras.StatelessScope(
                state_mapping=scope_of(trainable, non_trainable), collect_losses=True
            )
            with scope:
                y_pred = self(x, training=True)
                extras = [jnp.sum(extra) for extra in self.losses]
            leaves, tree = jax.tree.flatten(y_pred)
            masks = [getattr(leaf, "_keras_mask", None) for leaf in leaves]
            structure[:] = [tree]
            extra = sum(extras, jnp.zeros(()))
            after = moved(scope, self.non_trainable_variables)
            return (leaves, extra), (masks, after, bool(extras))

        (leaves, extra), linear, aux = jax.linearize(predict, trainable, has_aux=True)
        masks, after, has_extras = aux
        (tree,) = structure
        plan = self._gradient_plan

        def objective(leaves, rest):
            values = list(trainable)
            for position, value in zip(plan.rest, rest, strict=True):
                values[position] = value
            y_pred = jax.tree.unflatten(tree, leaves)
            for leaf, mask in zip(jax.tree.leaves(y_pred), masks, strict=True):
                if mask is not None:
                    leaf._keras_mask = mask
            scope = keras.StatelessScope(state_mapping=scope_of(values, after))
            with scope, self._keep_task_losses() as kept:
                self.compute_loss(x, y, y_pred, sample_weight, training=True)
            losses, counts, weighted = kept
            total = jnp.sum(weighted)
            states = [
                moved(scope, variables)
                for variables in (self.non_trainable_variables, self.metrics_variables)
            ]
            return total * unit, (total, losses, counts, *states)

        rest = [trainable[position] for position in plan.rest]
        (by_prediction, by_weighting), aux = jax.grad(
            objective, argnums=(0, 1), has_aux=True
        )(leaves, rest)
        total, losses, counts, after, metrics = aux

        # A task's loss depends on its own predictions alone. Transposing one output
        # leaves the other heads out.
        def transposed(output, cotangent):
            transpose = jax.linear_transpose(
                lambda *tangents: output(linear(list(tangents))), *trainable
            )
            return transpose(cotangent)

        y_pred = jax.tree.unflatten(tree, leaves)
        by_task = []
        for task, (index, cotangent) in enumerate(
            self._task_cotangents(x, y_pred, by_prediction)
        ):
            found = transposed(lambda tangents, i=index: tangents[0][i], cotangent)
            by_task.append({p: found[p] for p in plan.positions_of(task)})
        by_sum = dict(zip(plan.rest, by_weighting, strict=True))
        if plan.rest:
            found = transposed(lambda tangents: tangents[0], by_prediction)
            by_sum = {p: gradient + found[p] for p, gradient in by_sum.items()}
        by_extras = {}
        if has_extras:
            found = transposed(lambda tangents: tangents[1], unit.astype(extra.dtype))
            by_extras = dict(enumerate(found))
        mapping = list(zip(self.non_trainable_variables, after, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            gradients = aggregated_gradients(
                plan,
                self.aggregator,
                trainable,
                by_task,
                by_sum,
                by_extras,
                losses,
                (counts > 0).astype("float32"),
                unit,
            )
        after = moved(scope, self.non_trainable_variables)
        trainable, optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        mapping = list(zip(self.metrics_variables, metrics, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._report_loss(total + extra, x)
            logs = self.compute_metrics(x, y, y_pred, sample_weight)
        metrics = moved(scope, self.metrics_variables)
        return logs, (trainable, after, optimizer_state, metrics)

    def _step_with_gradient_norms(
        self, state: Any, data: Any
    ) -> tuple[dict[str, Any], Any]:
        trainable, non_trainable, optimizer_state, metrics = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        optimizer_scope = list(
            zip(self.optimizer.variables, optimizer_state, strict=True)
        )
        with keras.StatelessScope(state_mapping=optimizer_scope):
            unit = self.optimizer.scale_loss(jnp.ones(()))

        def scope_of(trainable):
            return [
                *zip(self.trainable_variables, trainable, strict=True),
                *zip(self.non_trainable_variables, non_trainable, strict=True),
                *zip(self.metrics_variables, metrics, strict=True),
            ]

        def objective(trainable):
            scope = keras.StatelessScope(
                state_mapping=scope_of(trainable), collect_losses=True
            )
            with scope:
                y_pred = self(x, training=True)
                masks = [
                    getattr(p, "_keras_mask", None) for p in jax.tree.leaves(y_pred)
                ]
                with self._keep_task_losses() as kept:
                    loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            losses, counts, _ = kept
            moved = [
                [scope.get_current_value(v) for v in variables]
                for variables in (self.non_trainable_variables, self.metrics_variables)
            ]
            return loss * unit, (loss, losses, counts, y_pred, masks, *moved)

        gradients, aux = jax.grad(objective, has_aux=True)(list(trainable))
        loss, losses, counts, y_pred, masks, non_trainable_after, metrics_after = aux

        # A task's loss depends on its own predictions alone, so one backward pass
        # of the sum of the losses gives every task's gradient by its predictions;
        # from there each goes through its own head only.
        def sum_of_losses(y_pred):
            for prediction, mask in zip(jax.tree.leaves(y_pred), masks, strict=True):
                if mask is not None:
                    prediction._keras_mask = mask
            with keras.StatelessScope(state_mapping=scope_of(trainable)):
                losses, _ = self.compute_task_losses(
                    x, y, y_pred, sample_weight, training=True
                )
            return jnp.sum(losses) * unit

        index = _index(self.gradient_norm_variable, self.trainable_variables)

        def predict(kernel):
            moved = [*trainable[:index], kernel, *trainable[index + 1 :]]
            with keras.StatelessScope(state_mapping=scope_of(moved)):
                return jax.tree.leaves(self(x, training=True))

        by_prediction = jax.tree.leaves(jax.grad(sum_of_losses)(y_pred))
        _, linear = jax.linearize(predict, trainable[index])
        norms = []
        for output, cotangent in self._task_cotangents(x, y_pred, by_prediction):
            # Transposing one output leaves the other heads out.
            transpose = jax.linear_transpose(
                lambda tangent, output=output: linear(tangent)[output], trainable[index]
            )
            (gradient,) = transpose(cotangent)
            norms.append(jnp.linalg.norm(jnp.ravel(gradient).astype("float32") / unit))
        norms = jnp.stack(norms)
        mapping = list(
            zip(self.non_trainable_variables, non_trainable_after, strict=True)
        )
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.weighting.update_from_gradients(
                losses, (counts > 0).astype("float32"), norms
            )
        non_trainable_after = [
            scope.get_current_value(v) for v in self.non_trainable_variables
        ]
        trainable, optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, gradients, list(trainable)
        )
        mapping = list(zip(self.metrics_variables, metrics_after, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._report_loss(loss, x)
            logs = self.compute_metrics(x, y, y_pred, sample_weight)
        metrics = [scope.get_current_value(v) for v in self.metrics_variables]
        return logs, (trainable, non_trainable_after, optimizer_state, metrics)

    def _step_with_losses_after(
        self, state: Any, data: Any
    ) -> tuple[dict[str, Any], Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        before = state[1]
        logs, state = super().train_step(state, data)
        trainable, non_trainable, optimizer_state, metrics = state
        forward_state = {id(v) for v in self._forward_state()}
        # The same dropout masks: the forward pass starts from the state that the
        # step started from, and what it does to that state is dropped.
        mapping = [
            *zip(self.trainable_variables, trainable, strict=True),
            *(
                (v, old if id(v) in forward_state else new)
                for v, old, new in zip(
                    self.non_trainable_variables, before, non_trainable, strict=True
                )
            ),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            y_pred = self(x, training=True)
            losses, counts = self.compute_task_losses(
                x, y, y_pred, sample_weight, training=True
            )
            self.weighting.update_after_step(losses, (counts > 0).astype("float32"))
        non_trainable = [
            new if id(v) in forward_state else scope.get_current_value(v)
            for v, new in zip(self.non_trainable_variables, non_trainable, strict=True)
        ]
        return logs, (trainable, non_trainable, optimizer_state, metrics)

    def _report_loss(self, loss: Any, x: Any) -> None:
        rows = next(t for t in keras.tree.flatten(x) if t is not None).shape[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=rows)


def _index(variable: Any, variables: list[Any]) -> int:
    return next(i for i, other in enumerate(variables) if other is variable)
