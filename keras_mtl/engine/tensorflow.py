"""The training step on TensorFlow."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_mtl.engine.gradient_plan import aggregated_gradients
from keras_mtl.engine.packing import (
    PackedFunctions,
    pack_logs,
    unpack_batch,
    unpack_logs,
)


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
        with tf.GradientTape(persistent=True) as tape:
            y_pred = self(x, training=True)
            with self._keep_task_losses() as kept:
                loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            losses, counts, weighted = kept
            replicas = num_replicas()
            scaled = self.optimizer.scale_loss(tf.reduce_sum(weighted) / replicas)
            extras = [tf.reduce_sum(extra) / replicas for extra in self.losses]
            scaled_extras = self.optimizer.scale_loss(sum(extras))
        variables = self.trainable_variables
        plan = self._gradient_plan
        # A task's loss depends on its own predictions alone, so one backward pass
        # of the sum gives every task's gradient by its predictions; from there each
        # goes through its own head and the trunk.
        predictions = keras.tree.flatten(y_pred)
        rest = [variables[position].value for position in plan.rest]
        by_prediction, by_rest = tape.gradient(scaled, (predictions, rest))
        by_task = []
        for task, (index, cotangent) in enumerate(
            self._task_cotangents(x, y_pred, by_prediction)
        ):
            gradients = {}
            if cotangent is not None:
                positions = plan.positions_of(task)
                found = tape.gradient(
                    predictions[index],
                    [variables[position].value for position in positions],
                    output_gradients=cotangent,
                )
                gradients = dict(zip(positions, map(_dense, found), strict=True))
            by_task.append(gradients)
        by_extras = {}
        if extras:
            found = tape.gradient(scaled_extras, [v.value for v in variables])
            by_extras = dict(enumerate(map(_dense, found)))
        del tape
        gradients = aggregated_gradients(
            plan,
            self.aggregator,
            [variable.value for variable in variables],
            by_task,
            dict(zip(plan.rest, by_rest, strict=True)),
            by_extras,
            tf.stop_gradient(losses),
            tf.cast(counts > 0, tf.float32),
            self.optimizer.scale_loss(tf.ones(())),
            replicas,
            sum_over_replicas,
        )
        self.optimizer.apply(gradients, variables)
        self._report_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight)

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


def _norm(gradient: Any, unit: Any) -> Any:
    """Returns the norm of a scaled gradient of the global batch."""
    if gradient is None:
        return tf.zeros(())
    gradient = sum_over_replicas(tf.convert_to_tensor(gradient)) / num_replicas()
    return tf.norm(tf.cast(gradient, tf.float32) / unit)
