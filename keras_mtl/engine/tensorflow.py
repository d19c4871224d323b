"""The training step on TensorFlow."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_mtl.engine.batch_part import first_rows, spread_rows
from keras_mtl.engine.forward import Forward
from keras_mtl.engine.gradient_probe import GradientProbe, ProbedBatch
from keras_mtl.engine.packing import (
    PackedFunctions,
    pack_logs,
    unpack_batch,
    unpack_logs,
)
from keras_mtl.engine.stages import Backward, Stages, gradients_by_key
from keras_mtl.engine.task_gradients import AggregatedStep


def num_replicas() -> int:
    """Returns the number of replicas that train in step."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def sum_over_replicas(tensor: Any) -> Any:
    """Returns the sum of a tensor over the replicas of `tf.distribute`."""
    if num_replicas() == 1 or tf.distribute.in_cross_replica_context():
        return tensor
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def snapshot(tensor: Any) -> Any:
    """Returns a copy, which does not see later values of a variable."""
    return tf.identity(tensor)


def copy_of(tensor: Any) -> Any:
    """Returns a tensor of the same values, with a gradient of its own."""
    copy = tf.identity(tensor)
    copy._keras_mask = getattr(tensor, "_keras_mask", None)
    return copy


def _after(tensor: Any, previous: Any) -> Any:
    with tf.control_dependencies([previous]):
        return tf.identity(tensor)


def _packing(step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], Any]:
    return lambda data: pack_logs(step(unpack_batch(data)))


def _unpacking(function: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda data: unpack_logs(function(data), tf.unstack)


class TrainStep(PackedFunctions):
    """Steps of `MultiTaskModel`: Keras's own, unless the weighting wants more."""

    _packing = staticmethod(_packing)
    _unpacking = staticmethod(_unpacking)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one batch."""
        for probe in self._gradient_probes:
            probe.update_state(functools.partial(self._probed_batch, probe, data))
        if self.aggregator is not None:
            return self._step_with_aggregation(data)
        if self.weighting.needs_gradient_norms:
            return self._step_with_gradient_norms(data)
        if self.weighting.needs_losses_after_step:
            return self._step_with_losses_after(data)
        return super().train_step(data)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one batch."""
        return self._without_weights(super().test_step(data))

    def _step_with_aggregation(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        plan, stages = self._gradient_plan
        replicas = num_replicas()
        variables = self.trainable_variables

        def objective(y_pred):
            with self._keep_task_losses() as kept:
                loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            return loss, *kept

        tape, forward = self._forward(stages, x)
        with tape:
            loss, losses, counts, weighted = objective(forward.y_pred)
            scaled = self.optimizer.scale_loss(tf.reduce_sum(weighted) / replicas)
            extras = [tf.reduce_sum(extra) / replicas for extra in self.losses]
            scaled_extras = self.optimizer.scale_loss(sum(extras))
        by_extras = {}
        if extras:
            found = tape.gradient(scaled_extras, [v.value for v in variables])
            by_extras = dict(enumerate(map(_dense, found)))
        step = AggregatedStep(
            plan=plan,
            options=self._aggregation_options,
            aggregator=self.aggregator,
            backward=self._backward(tape, forward, scaled, x),
            variables=[variable.value for variable in variables],
            losses=tf.stop_gradient(losses),
            present=tf.cast(counts > 0, tf.float32),
            unit=self.optimizer.scale_loss(tf.ones(())),
            replicas=replicas,
            sum_over_replicas=sum_over_replicas,
            after=_after,
            part=self._backward_of_part(x, y, sample_weight),
        )
        gradients = step.gradients(by_extras)
        del tape
        self.optimizer.apply(gradients, variables)
        self._report_loss(loss, x)
        self._report_gradients(step)
        return self.compute_metrics(x, y, forward.y_pred, sample_weight)

    def _forward(self, stages: Stages, x: Any) -> tuple[tf.GradientTape, "Forward"]:
        """Runs the stages under a tape that can be entered once more."""
        with tf.GradientTape(persistent=True) as tape:
            forward = Forward(stages, x, copy_of)
        return tape, forward

    def _backward(self, tape, forward, scaled, x, plan_and_stages=None):
        """Differentiates the heads, and says how to go on down the trunk."""
        variables = self.trainable_variables
        plan, stages = plan_and_stages or self._gradient_plan
        positions = plan.of_heads
        copies = forward.differentiable_copies
        by_copy, by_variable = tape.gradient(
            scaled,
            (copies, [variables[position].value for position in positions]),
        )
        by_copy = list(map(_dense, by_copy))

        def pull(index, given, positions, through):
            values, outputs = forward.of_stages[index]
            sources = [variables[p].value for p in positions]
            sources += [values[key] for key in through]
            found = tape.gradient(
                [outputs[key] for key in given],
                sources,
                output_gradients=list(given.values()),
            )
            found = list(map(_dense, found))
            return (
                dict(zip(positions, found, strict=False)),
                dict(zip(through, found[len(positions) :], strict=True)),
            )

        return Backward(
            stages,
            [functools.partial(pull, index) for index in range(len(stages.trunk))],
            gradients_by_key(
                stages.heads.inputs,
                forward.spread(by_copy),
                len(self.task_names),
                functools.partial(self._by_rows, x),
            ),
            dict(zip(positions, map(_dense, by_variable), strict=True)),
        )

    def _backward_of_part(self, x, y, sample_weight):
        fraction = self._aggregation_options.gramian_fraction
        if fraction == 1.0:
            return None

        def backward():
            part = first_rows((x, y, sample_weight), fraction)
            state = self._forward_state()
            before = [tf.identity(v.value) for v in state]
            tape, forward = self._forward(self._gradient_plan[1], part[0])
            with tape:
                weighted = self._weighted_losses(*part, forward.y_pred)
                scaled = self.optimizer.scale_loss(
                    tf.reduce_sum(weighted) / num_replicas()
                )
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)
            return self._backward(tape, forward, scaled, part[0])

        return backward

    def _probed_batch(self, probe: GradientProbe, data: Any) -> ProbedBatch:
        x, y, sample_weight = spread_rows(
            keras.utils.unpack_x_y_sample_weight(data), probe.fraction
        )
        plan, stages = self._probed_plan
        # What is done to states stays in the scopes.
        with keras.StatelessScope():
            tape, forward = self._forward(stages, x)
            with tape:
                losses, counts, summed = self._probed_losses(
                    x, y, sample_weight, forward.y_pred, probe.weighted
                )
                scaled = self.optimizer.scale_loss(tf.reduce_sum(summed))
        variables = self.trainable_variables

        def losses_with(values):
            mapping = [(variables[p], value) for p, value in values.items()]
            with keras.StatelessScope(state_mapping=mapping):
                y_pred = self(x, training=True)
                return self._probed_losses(x, y, sample_weight, y_pred)[0]

        return ProbedBatch(
            plan,
            self._backward(tape, forward, scaled, x, self._probed_plan),
            [variable.value for variable in variables],
            losses,
            tf.cast(counts > 0, tf.float32),
            self.optimizer.scale_loss(tf.ones(())),
            tf.convert_to_tensor(self._learning_rate),
            # Quicker than `tf.vectorized_map`, and right for every operation.
            lambda values: tf.stack(list(map(losses_with, _unstacked(values)))),
        )

    def _step_with_gradient_norms(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape(persistent=True) as tape:
            y_pred = self(x, training=True)
            with self._keep_task_losses() as kept:
                loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            losses, counts, _ = kept
            scaled = self.optimizer.scale_loss(loss)
            scaled_losses = self.optimizer.scale_loss(tf.reduce_sum(losses))
        # A task's loss depends on its own predictions alone, so one backward pass
        # of the sum of the losses gives every task's gradient by its predictions;
        # from there each goes through its own head only.
        predictions = keras.tree.flatten(y_pred)
        by_prediction = tape.gradient(scaled_losses, predictions)
        kernel = self.gradient_norm_variable.value
        gradients_by_task = [
            tape.gradient(predictions[index], kernel, output_gradients=cotangent)
            for index, cotangent in self._task_cotangents(x, y_pred, by_prediction)
        ]
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        del tape
        unit = self.optimizer.scale_loss(tf.ones(()))
        norms = tf.stack([_norm(g, unit) for g in gradients_by_task])
        self.optimizer.apply(gradients, variables)
        self.weighting.update_from_gradients(
            losses, tf.cast(counts > 0, tf.float32), norms
        )
        self._report_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _step_with_losses_after(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        state = self._forward_state()
        before = [tf.identity(v.value) for v in state]
        logs = super().train_step(data)
        after = [tf.identity(v.value) for v in state]
        # The same dropout masks and no second update of moving averages: the
        # forward pass starts from the state that the step started from.
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)
        y_pred = self(x, training=True)
        losses, counts = self.compute_task_losses(
            x, y, y_pred, sample_weight, training=True
        )
        self.weighting.update_after_step(losses, tf.cast(counts > 0, tf.float32))
        for variable, value in zip(state, after, strict=True):
            variable.assign(value)
        return logs

    def _report_loss(self, loss: Any, x: Any) -> None:
        rows = tf.shape(next(t for t in keras.tree.flatten(x) if t is not None))[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * num_replicas(), sample_weight=rows)


def _dense(gradient: Any) -> Any:
    """Returns a gradient as a tensor, also that of an embedding."""
    return None if gradient is None else tf.convert_to_tensor(gradient)


def _unstacked(values: dict[int, Any]) -> list[dict[int, Any]]:
    """Returns dicts of single values, of one of stacks of them."""
    stacks = map(tf.unstack, values.values())
    return [dict(zip(values, each, strict=True)) for each in zip(*stacks, strict=True)]


def _norm(gradient: Any, unit: Any) -> Any:
    """Returns the norm of a scaled gradient of the global batch."""
    if gradient is None:
        return tf.zeros(())
    gradient = sum_over_replicas(tf.convert_to_tensor(gradient)) / num_replicas()
    return tf.norm(tf.cast(gradient, tf.float32) / unit)
