"""The training step on JAX."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_mtl.engine.batch_part import first_rows, spread_rows
from keras_mtl.engine.forward import head_copy
from keras_mtl.engine.gradient_plan import GradientPlan
from keras_mtl.engine.gradient_probe import GradientProbe, ProbedBatch
from keras_mtl.engine.packing import (
    PackedFunctions,
    pack_logs,
    unpack_batch,
    unpack_logs,
)
from keras_mtl.engine.stages import (
    Backward,
    OuterProduct,
    Stages,
    add_to,
    gradients_by_key,
)
from keras_mtl.engine.task_gradients import AggregatedStep
from keras_mtl.engine.tensor_masks import TensorMasks


def num_replicas() -> int:
    """Returns 1: a step on JAX sees the global batch on any number of devices."""
    return 1


def sum_over_replicas(tensor: Any) -> Any:
    """Returns the tensor itself, which is global."""
    return tensor


def snapshot(tensor: Any) -> Any:
    """Returns the tensor itself, which no later value of a variable can change."""
    return jnp.asarray(tensor)


def copy_of(tensor: Any) -> Any:
    """Returns the tensor itself: what has a gradient of its own is an argument."""
    return tensor


def _packing(step: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    def packing(state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        if isinstance(data, _MarkedBatch):
            data = data.take()
        logs, state = step(state, unpack_batch(data))
        return pack_logs(logs), state

    return packing


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["batch"], meta_fields=["marks"]
)
@dataclass(frozen=True)
class _MarkedBatch:
    """A batch with what is measured in its step, for which there is a compiled step.

    A condition of the graph would do for one compiled step. But XLA has its passes for
    convolutions on CPUs not look into branches, where they take 20 times as long.

    Attributes:
        batch: The batch.
        marks: The probes, each with the periods that are due.
    """

    batch: Any
    marks: tuple[tuple[GradientProbe, tuple[int, ...]], ...]

    def take(self) -> Any:
        """Has the probes know what is due, and returns the batch."""
        for probe, due in self.marks:
            probe.due = due
        return self.batch


def _marking(
    function: Callable[..., tuple[Any, Any]], probes: Sequence[GradientProbe]
) -> Callable[..., tuple[Any, Any]]:
    def mark(batch: Any) -> _MarkedBatch:
        return _MarkedBatch(batch, tuple((p, p.count_step()) for p in probes))

    def marking(state: Any, iterator: Any) -> tuple[Any, Any]:
        # Keras takes as many batches as there are steps in an execution.
        return function(state, map(mark, iterator))

    return marking


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

    def make_train_function(self, force: bool = False) -> None:
        """Makes the function of a training step, as Keras."""
        if self.train_function is None or force:
            super().make_train_function(force)
            if self._gradient_probes:
                self.train_function = _marking(
                    self.train_function, self._gradient_probes
                )

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
        forward = _Forward(self, trainable, non_trainable, metrics)
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
        )
        mapping = list(
            zip(self.non_trainable_variables, forward.non_trainable, strict=True)
        )
        with keras.StatelessScope(state_mapping=mapping) as scope:
            gradients = step.gradients(by_extras)
        non_trainable = _moved(scope, self.non_trainable_variables)
        trainable, optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        mapping = list(zip(self.metrics_variables, forward.metrics, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._report_loss(total + extra, x)
            self._report_gradients(step)
            logs = self.compute_metrics(x, y, forward.y_pred, sample_weight)
        metrics = _moved(scope, self.metrics_variables)
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
            forward = _Forward(self, trainable, non_trainable, metrics, in_rows)
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
        return *rest, _moved(scope, self.metrics_variables)

    def _probed_batch(self, probe: GradientProbe, state: Any, data: Any) -> ProbedBatch:
        trainable, non_trainable, _, metrics = state
        x, y, sample_weight = spread_rows(
            keras.utils.unpack_x_y_sample_weight(data), probe.fraction
        )
        unit = self.optimizer.scale_loss(jnp.ones(()))
        forward = _Forward(
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


class _Forward:
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
            after = _moved(scope, self.model.non_trainable_variables)
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
        return _index(variable, self.model.trainable_variables)

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
                _moved(scope, self.model.non_trainable_variables),
                _moved(scope, self.model.metrics_variables),
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


def _moved(scope: keras.StatelessScope, variables: Any) -> list[Any]:
    return [scope.get_current_value(variable) for variable in variables]


def _is_floating(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)


def _after(tensor: Any, previous: Any) -> Any:
    return jax.lax.optimization_barrier((tensor, previous))[0]


def _index(variable: Any, variables: list[Any]) -> int:
    return next(i for i, other in enumerate(variables) if other is variable)
