"""The training step on JAX."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_mtl.engine.batch_part import first_rows, spread_rows
from keras_mtl.engine.gradient_probe import GradientProbe, ProbedBatch
from keras_mtl.engine.jax_forward import StagedForward, index_of, values_after
from keras_mtl.engine.jax_marks import MarkedBatch, marking
from keras_mtl.engine.packing import (
    PackedFunctions,
    pack_logs,
    unpack_batch,
    unpack_logs,
)
from keras_mtl.engine.task_gradients import AggregatedStep


def num_replicas() -> int:
    """Returns 1: a step on JAX sees the global batch on any number of devices."""
    return 1


def sum_over_replicas(tensor: Any) -> Any:
    """Returns the tensor itself, which is global."""
    return tensor


def snapshot(tensor: Any) -> Any:
    """Returns the tensor itself, which no later value of a variable can change."""
    return jnp.asarray(tensor)


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

    _unpacking = staticmethod(_unpacking)
    _weights_known_due = False

    def make_train_function(self, force: bool = False) -> None:
        """Makes the function of a training step, as Keras."""
        if self.train_function is None or force:
            super().make_train_function(force)
            if self._gradient_probes or self.aggregator is not None:
                self.train_function = marking(self.train_function, self)

    def _packing(
        self, step: Callable[..., tuple[Any, Any]]
    ) -> Callable[..., tuple[Any, Any]]:
        def packing(state: Any, data: Any) -> tuple[dict[str, Any], Any]:
            if isinstance(data, MarkedBatch):
                for probe, due in data.probes:
                    probe.due = due
                self._weights_known_due = data.weights_due
                data = data.batch
            try:
                logs, state = step(state, unpack_batch(data))
            finally:
                self._weights_known_due = False
            return pack_logs(logs), state

        return packing

    def train_step(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """Trains on one batch."""
        state = self._probe_gradients(state, data)
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
        forward = StagedForward(self, trainable, non_trainable, metrics)
        forward.run_trunk(x)

        def objective(y_pred):
            with self._keep_task_losses() as kept:
                self.compute_loss(x, y, y_pred, sample_weight, training=True)
            return kept

        backward = forward.differentiate_heads(x, objective, unit)
        losses, counts, weighted = forward.kept
        total, extra = jnp.sum(weighted), forward.extra
        by_extras = forward.gradients_of_extras(unit)
        step = AggregatedStep(
            plan=self._gradient_plan[0],
            options=self._aggregation_options,
            aggregator=self.aggregator,
            backward=backward,
            variables=trainable,
            losses=losses,
            present=(counts > 0).astype("float32"),
            unit=unit,
            after=_after,
            part=self._backward_of_part(
                x, y, sample_weight, trainable, non_trainable, metrics, unit
            ),
            known_due=self._weights_known_due,
        )
        mapping = list(
            zip(self.non_trainable_variables, forward.non_trainable, strict=True)
        )
        with keras.StatelessScope(state_mapping=mapping) as scope:
            gradients = step.gradients(by_extras)
        non_trainable = values_after(scope, self.non_trainable_variables)
        trainable, optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        mapping = list(zip(self.metrics_variables, forward.metrics, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._report_loss(total + extra, x)
            self._report_gradients(step)
            logs = self.compute_metrics(x, y, forward.y_pred, sample_weight)
        metrics = values_after(scope, self.metrics_variables)
        return logs, (trainable, non_trainable, optimizer_state, metrics)

    def _backward_of_part(
        self, x, y, sample_weight, trainable, non_trainable, metrics, unit
    ):
        fraction = self._aggregation_options.gramian_fraction
        if fraction == 1.0:
            return None

        def backward():
            part = first_rows((x, y, sample_weight), fraction)
            # Chunks multiply gradients out: they take those of few tasks at a time.
            in_rows = self._aggregation_options.chunk_size is None
            forward = StagedForward(self, trainable, non_trainable, metrics, in_rows)
            forward.run_trunk(part[0])

            def objective(y_pred):
                return [self._weighted_losses(*part, y_pred)]

            return forward.differentiate_heads(part[0], objective, unit)

        return backward

    def _probe_gradients(self, state: Any, data: Any) -> Any:
        """Lets the probes of callbacks look at a batch; the rest of the state stays."""
        *rest, metrics = state
        if not self._gradient_probes:
            return state
        mapping = [
            *zip(self.trainable_variables, rest[0], strict=True),
            *zip(self.non_trainable_variables, rest[1], strict=True),
            *zip(self.optimizer.variables, rest[2], strict=True),
            *zip(self.metrics_variables, metrics, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            for probe in self._gradient_probes:
                probe.update_state(
                    functools.partial(self._probed_batch, probe, state, data)
                )
        return *rest, values_after(scope, self.metrics_variables)

    def _probed_batch(self, probe: GradientProbe, state: Any, data: Any) -> ProbedBatch:
        trainable, non_trainable, _, metrics = state
        x, y, sample_weight = spread_rows(
            keras.utils.unpack_x_y_sample_weight(data), probe.fraction
        )
        unit = self.optimizer.scale_loss(jnp.ones(()))
        forward = StagedForward(
            self, trainable, non_trainable, metrics, probe.in_rows, self._probed_plan
        )
        forward.run_trunk(x)
        backward = forward.differentiate_heads(
            x,
            lambda y_pred: self._probed_losses(
                x, y, sample_weight, y_pred, probe.weighted
            ),
            unit,
        )
        losses, counts, _ = forward.kept

        def losses_with(values):
            given = list(trainable)
            for position, value in values.items():
                given[position] = value
            mapping = [
                *zip(self.trainable_variables, given, strict=True),
                *zip(self.non_trainable_variables, non_trainable, strict=True),
                *zip(self.metrics_variables, metrics, strict=True),
            ]
            with keras.StatelessScope(state_mapping=mapping):
                y_pred = self(x, training=True)
                return jnp.asarray(self._probed_losses(x, y, sample_weight, y_pred)[0])

        return ProbedBatch(
            self._probed_plan[0],
            backward,
            trainable,
            losses,
            (counts > 0).astype("float32"),
            unit,
            jnp.asarray(self._learning_rate),
            jax.vmap(losses_with),
        )

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

        index = index_of(self.gradient_norm_variable, self.trainable_variables)

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


def _after(tensor: Any, previous: Any) -> Any:
    return jax.lax.optimization_barrier((tensor, previous))[0]
