"""`MultiTaskModel`: many tasks under plain `model.fit`."""

import contextlib
import inspect
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl import aggregation as aggregations
from keras_mtl import engine
from keras_mtl import weighting as weightings
from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.engine.gradient_plan import GradientPlan, LayerUse, make_plan
from keras_mtl.engine.gradient_probe import GradientProbe
from keras_mtl.engine.packing import is_packed, pack_arrays
from keras_mtl.engine.stages import Stages
from keras_mtl.engine.task_gradients import AggregationOptions
from keras_mtl.engine.tensor_masks import TensorMasks
from keras_mtl.metrics.gradient_statistics import GradientStatistics
from keras_mtl.metrics.task_means import TaskMeans
from keras_mtl.models.aggregation_setup import (
    PARAMETERS,
    check_options,
    check_weighting,
    log_kinds,
)
from keras_mtl.models.gate_means import GateMeans, gate_means
from keras_mtl.models.gradient_stages import GradientStages
from keras_mtl.models.loss_arguments import serialize_losses
from keras_mtl.models.model_arguments import (
    check_keys,
    check_numbers,
    check_tasks,
    copies,
    kind,
    plain_logs,
    plain_numbers,
    weights_by_task,
)
from keras_mtl.models.saved_seeds import SavedSeeds
from keras_mtl.models.sharing import (
    LayerSharing,
    SharedLayer,
    inputs_of_tasks,
    print_sharing,
    shared_layers,
    sharing_rows,
    uses_in_graph,
    uses_of_pairs,
)
from keras_mtl.models.task_losses import (
    TaskBatch,
    TaskLosses,
    is_elementwise,
    task_labels,
)
from keras_mtl.models.task_metrics import TaskMetrics
from keras_mtl.models.task_objective import TaskObjective
from keras_mtl.weighting.weighting import Weighting


class _Training:
    """What `compile` was given and made: a plain object, which Keras won't track."""

    arguments: dict[str, Any]
    losses: TaskLosses
    metrics: TaskMetrics
    loss_means: TaskMeans
    weight_means: TaskMeans
    gate_means: list[GateMeans]
    masks: TensorMasks | None = None
    testing: bool = False
    local: threading.local
    kept_masks: list[Any] | None = None
    aggregation: AggregationOptions | None = None
    aggregate_at: str = PARAMETERS
    gradient_statistics: GradientStatistics | None = None
    gradient_plan: tuple[list[int], GradientPlan, Stages] | None = None
    gradient_probes: Sequence[GradientProbe] = ()
    probed_plan: tuple[GradientPlan, Stages] | None = None

    def of_training(self) -> list[Any]:
        """Metrics of what is there in training alone."""
        found = [self.weight_means, self.gradient_statistics, *self.gradient_probes]
        found += [metric for gate in self.gate_means for metric in gate.metrics]
        return [metric for metric in found if metric is not None]


@keras.saving.register_keras_serializable("keras_mtl")
class MultiTaskModel(engine.TrainStep, GradientStages, SavedSeeds, keras.Model):
    """A model of several tasks, each with its own loss, metrics and weight.

    A task is a key: `loss`, `metrics`, `loss_weights`, labels and sample weights
    are dicts with the same keys. The objective is

    $$ L = \\sum_k \\lambda_k w_k L_k + \\text{regularisation} $$

    with the mean loss $L_k$ of task k over its labels that are there, the weight
    $w_k$ of the weighting and the user's own weight $\\lambda_k$ (`loss_weights`).

    Three forms, and subclasses:

    - **One input, many labels**: `outputs` is a dict of tensors, one a task.
    - **One output, conditioned on the task**: `outputs` is one tensor,
      `task_names` names the tasks and `task_input` the input that holds each
      row's task index (or its one-hot form). Losses and metrics are kept per task.
    - **Each task its own inputs**: `inputs` and `outputs` are dicts of tensors;
      `layers.SharedTrunk` passes the rows of all tasks through the trunk once.
    - A subclass whose `call` returns a dict passes `task_names` to
      `super().__init__`, or a dict of losses to `compile`. It overrides
      `layer_tasks` to say which layers are shared.

    A label that is NaN, that equals the task's `mask_value`, or whose sample
    weight is 0 is missing. A task without labels in a batch gives no loss, no
    gradient, no metric update and no update of the weighting.

    Args:
        inputs: Inputs of a functional model, as in `keras.Model`.
        outputs: Dict of output tensors by task, or one tensor with `task_names`
            and `task_input`.
        name: String, optional. Name of the model.
        task_names: Names of the tasks. Defaults to the keys of `outputs`.
        task_input: Name of the input that holds the task index of each row: an
            integer tensor of shape `(rows,)` or `(rows, 1)` counting from 0 in
            the order of `task_names`, or a one-hot tensor `(rows, T)`.

    Raises:
        ValueError: `outputs` is no dict and `task_names` or `task_input` is
            missing; names of tasks are not unique.

    Example:

    ```python
    inputs = keras.Input((4,))
    h = keras.layers.Dense(8, "relu")(inputs)
    outputs = {
        "income": keras.layers.Dense(1, "sigmoid")(h),
        "hours": keras.layers.Dense(1)(h),
    }
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile(
        "adam",
        loss={"income": "binary_crossentropy", "hours": "mse"},
        weighting="uncertainty",
    )
    x = np.random.default_rng(0).normal(size=(64, 4))
    y = {"income": x[:, 0] > 0, "hours": np.where(x[:, 1] > 0, x[:, 2], np.nan)}
    history = model.fit(x, y, verbose=0)
    sorted(history.history)
    # ['hours_loss', 'hours_weight', 'income_loss', 'income_weight', 'loss']
    ```

    Reference:
        Caruana, Multitask Learning, Machine Learning 28, 1997,
        https://doi.org/10.1023/A:1007379606734
    """

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        *,
        task_names: Sequence[str] | None = None,
        task_input: str | None = None,
        **kwargs: Any,
    ) -> None:
        if (inputs is None) != (outputs is None):
            raise ValueError(
                "`inputs` and `outputs` go together. Received: "
                f"inputs={inputs!r}, outputs={outputs!r}"
            )
        task_names = check_tasks(inputs, outputs, task_names, task_input)
        if inputs is None:
            super().__init__(name=name, **kwargs)
        else:
            functional = type(keras.Model(inputs, outputs))
            if not isinstance(self, functional):
                self.__class__ = _functional_variant(type(self), functional)
            functional.__init__(self, inputs, outputs, name=name, **kwargs)
        self._runs_graph = inputs is not None and type(self).call is functional.call
        self._output_tasks = task_names
        self._task_input = task_input
        self._task_objective = TaskObjective()
        self._training_state = None

    # Tasks

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks: those compiled with a loss, in the order of vectors."""
        if self._training_state is not None:
            return list(self._training_state.losses.task_names)
        return list(self._output_tasks or ())

    @property
    def task_input(self) -> str | None:
        """Name of the input that holds the task of each row, if there is one."""
        return self._task_input

    @property
    def weighting(self) -> Weighting | None:
        """The loss weighting in force; None before `compile`."""
        return self._task_objective.weighting

    @property
    def aggregator(self) -> Aggregator | None:
        """The gradient aggregator in force; None without one."""
        return self._task_objective.aggregator

    def set_loss_weights(self, loss_weights: Mapping[str, float]) -> None:
        """Changes the user's weights of tasks, also while training.

        A callback may call it on every backend; the compiled step reads the new
        values. Tasks that are not named keep theirs.

        Args:
            loss_weights: Weights by task.

        Raises:
            ValueError: The model is not compiled, a task is unknown, or a weight
                is negative or not finite.
        """
        if self._training_state is None:
            raise ValueError("`set_loss_weights` needs a compiled model.")
        given = plain_numbers(loss_weights, "loss_weights")
        given = check_numbers(given, self.task_names, "loss_weights")
        values = self.loss_weights
        values.update(given)
        self._task_objective.loss_weights.assign([values[n] for n in self.task_names])

    @property
    def loss_weights(self) -> dict[str, float]:
        """The user's weights by task, as they are now."""
        values = ops.convert_to_numpy(self._task_objective.loss_weights)
        return dict(zip(self.task_names, map(float, values), strict=True))

    # Compilation

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, float] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: str | bool = "auto",
        auto_scale_loss: bool = True,
        *,
        weighting: str | Weighting | None = None,
        aggregator: str | Aggregator | None = None,
        aggregate_at: str = PARAMETERS,
        chunk_size: int | None = None,
        gramian_fraction: float = 1.0,
        gradient_logs: bool | Sequence[str] = False,
        mask_value: float | Mapping[str, float] | None = None,
    ) -> None:
        """Configures training. May be called again, also with other tasks.

        Args:
            optimizer: As in Keras.
            loss: A loss for every task, or a dict of losses by task. Outputs
                without a loss are not trained.
            loss_weights: Dict of the user's weights by task; a task that is not
                named has 1. They multiply what the weighting makes of the losses.
            metrics: Dict by task of a metric or a list of metrics; or a metric or
                a list of them for every task. Missing labels are left out.
            weighted_metrics: The same, weighted by the sample weights.
            run_eagerly: As in Keras.
            steps_per_execution: As in Keras.
            jit_compile: As in Keras.
            auto_scale_loss: As in Keras.
            weighting: Name or instance of a `keras_mtl.weighting.Weighting`.
                Defaults to the sum of the task losses.
            aggregator: Name or instance of a `keras_mtl.aggregation.Aggregator`,
                which is given the gradients of the weighted task losses by what
                several tasks share. Defaults to their sum.
            aggregate_at: `"parameters"`, the shared variables: exact, one backward
                pass through the trunk for each task. `"representation"`, the tensors
                of the functional graph where tasks part: one pass through the trunk
                in all. Or the name of the layer whose output is the representation,
                for a subclassed model. Defaults to `"parameters"`.
            chunk_size: Number of tasks whose gradients by the parameters are held at
                once, which bounds the memory; the gradients are computed several
                times. Defaults to all.
            gramian_fraction: Float in (0, 1], the part of the batch that the Gramian
                is formed on, by a forward pass of its own over the first rows whose
                updates of state are dropped. Defaults to `1.0`.
            gradient_logs: Whether the logs show what the gradients of tasks say of
                each other, or a list of what they show, of `"norms"`, `"weights"`,
                `"conflict_rate"` and `"cosines"`; see `metrics.GradientStatistics`.
                Defaults to `False`.
            mask_value: Value that stands for a missing label, or a dict of such
                values by task.

        Raises:
            ValueError: A key is no task, no task has a loss, or a value has the
                wrong type.
        """
        losses = self._by_task(loss, "loss")
        losses = {task: fn for task, fn in losses.items() if fn is not None}
        if not losses:
            raise ValueError(
                f"`loss` must give at least one task a loss. Received: loss={loss!r}"
            )
        tasks = [t for t in self._output_tasks or losses if t in losses]
        arguments = dict(
            optimizer=keras.optimizers.get(optimizer),
            loss=loss,
            loss_weights=plain_numbers(loss_weights, "loss_weights"),
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
            mask_value=plain_numbers(mask_value, "mask_value"),
        )
        scale = dict.fromkeys(tasks, 1.0)
        scale.update(check_numbers(loss_weights, tasks, "loss_weights"))
        training = _Training()
        training.local = threading.local()
        training.arguments = arguments
        training.losses = TaskLosses(
            {task: losses[task] for task in tasks},
            self._check_mask_values(mask_value, tasks),
        )
        training.metrics = TaskMetrics(
            self._by_task(metrics, "metrics"),
            self._by_task(weighted_metrics, "weighted_metrics"),
        )
        training.loss_means = TaskMeans(tasks, "loss")
        training.weight_means = TaskMeans(tasks, "weight")
        training.gate_means = gate_means(self._flatten_layers())
        training.rows_from = {}
        if self._task_input is None and hasattr(self, "output"):
            training.rows_from = inputs_of_tasks(self, dict(self.output))
        new_weighting = weightings.get(weighting)
        new_aggregator = None if aggregator is None else aggregations.get(aggregator)
        training.arguments["weighting"] = new_weighting
        training.arguments["aggregator"] = new_aggregator
        training.arguments["aggregate_at"] = aggregate_at
        training.arguments["chunk_size"] = chunk_size
        training.arguments["gramian_fraction"] = gramian_fraction
        training.arguments["gradient_logs"] = gradient_logs
        training.aggregation = check_options(
            new_aggregator, aggregate_at, chunk_size, gramian_fraction, gradient_logs
        )
        training.aggregate_at = aggregate_at
        if new_aggregator is not None:
            check_weighting(new_aggregator, new_weighting)
            self._prepare_aggregator(new_aggregator, tasks, training)
        if kinds := log_kinds(gradient_logs):
            training.gradient_statistics = GradientStatistics(tasks, kinds)
        self._task_objective.set(
            tasks, list(scale.values()), new_weighting, new_aggregator
        )
        training.masks = self._prediction_masks()
        self._training_state = training
        super().compile(
            optimizer=arguments["optimizer"],
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        # With the loss scaling that Keras adds under mixed_float16: a loaded model
        # may be compiled under another policy, and then misses its state.
        arguments["optimizer"] = self.optimizer
        self._keep_weighting_from_decay()
        if new_weighting.needs_gradient_norms:
            self._check_gradient_norm_variable()

    @property
    def compile_arguments(self) -> dict[str, Any]:
        """What `compile` was given, by name; empty before it.

        To compile again with one of them changed:
        `model.compile(**{**model.compile_arguments, "weighting": "uncertainty"})`.
        """
        if self._training_state is None:
            return {}
        return dict(self._training_state.arguments)

    def get_compile_config(self) -> dict[str, Any]:
        """Returns what `compile` was given, serialised."""
        if self._training_state is None:
            return {}
        arguments = dict(self._training_state.arguments)
        losses = serialize_losses(arguments.pop("loss"))
        config = {
            key: keras.saving.serialize_keras_object(value)
            for key, value in arguments.items()
        }
        return {**config, "loss": losses}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds as `get_build_config` says; a model of a graph is built already."""
        if not hasattr(self, "output"):
            super().build_from_config(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says, and builds the optimiser."""
        arguments = {
            key: keras.saving.deserialize_keras_object(value)
            for key, value in config.items()
        }
        self.compile(**arguments)
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def _keep_weighting_from_decay(self) -> None:
        """Leaves a weighting's variables out of weight decay, which pulls to 0."""
        variables = self.weighting.trainable_variables
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if variables and optimizer is not None and not optimizer.built:
            optimizer.exclude_from_weight_decay(var_list=variables)

    def _by_task(self, given: Any, argument: str) -> dict[str, Any]:
        """Returns a dict by task of an argument that may be for all tasks."""
        if given is None:
            return {}
        tasks = self._output_tasks
        if isinstance(given, Mapping) and "class_name" not in given:
            unknown = [key for key in given if tasks and key not in tasks]
            if unknown:
                raise ValueError(
                    f"Keys of `{argument}` must be tasks of the model: "
                    f"{list(tasks)}. Received: {unknown}"
                )
            return dict(given)
        if not tasks:
            raise ValueError(
                f"`{argument}` must be a dict by task, or the model must be given "
                f"`task_names`. Received: {argument}={given!r}"
            )
        return {task: copies(given, task == tasks[0]) for task in tasks}

    def _rows_from(self, x: Any) -> dict[str, Any]:
        """Returns by task what its rows come from, for tasks of one loss to share."""
        if hasattr(self, "output"):
            return self._training_state.rows_from
        if isinstance(x, Mapping) and all(task in x for task in self.task_names):
            return {task: task for task in self.task_names}
        return {}

    def _check_mask_values(self, given: Any, tasks: list[str]) -> dict[str, float]:
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            given = dict.fromkeys(tasks, given)
        values = check_numbers(given, tasks, "mask_value", negative=True)
        return values

    # Losses and metrics

    def compute_task_losses(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = False,
    ) -> tuple[Any, Any]:
        """Returns the unweighted loss of each task and its number of labels.

        $$ L_k = \\frac{\\sum_i v_{ki} \\ell_k(y_{ki}, \\hat y_{ki})}{n_k} $$

        over the $n_k$ labels of task k that are there, with sample weights v. (The
        reduction of the task's loss may be another: "sum" divides by 1,
        "mean_with_sample_weight" by the sum of the weights.) It may be overridden; a
        task's loss is to depend on the predictions of that task alone.

        Args:
            x: Inputs; needed where `task_input` names one.
            y: Labels: a dict by task, or one tensor where `task_input` is given.
                A task that is not in the dict, or whose labels are None, is absent.
            y_pred: What the model returned.
            sample_weight: Sample weights like `y`; tasks may be left out.
            training: Whether the class weights of `fit` are in force.

        Returns:
            Losses and numbers of present labels, float tensors of shape `(T,)` in
            the order of `task_names`. The loss of an absent task is 0.

        Raises:
            ValueError: Keys are no tasks, or shapes do not fit.
        """
        batch, membership = self._task_batch(x, y, y_pred, sample_weight)
        sums, denominators, counts = self._training_state.losses(
            batch, membership=membership, training=training
        )
        replicas = engine.num_replicas()
        if replicas > 1:
            counts = engine.sum_over_replicas(counts)
            denominators = engine.sum_over_replicas(ops.stop_gradient(denominators))
        losses = sums / ops.where(denominators > 0, denominators, 1.0)
        if replicas > 1:
            # The loss of the global batch, with a gradient that the optimiser's
            # sum over replicas makes that of the global batch.
            local = replicas * losses
            value = engine.sum_over_replicas(ops.stop_gradient(losses))
            losses = ops.stop_gradient(value - local) + local
        return losses, counts

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the objective of a batch and updates the means of task losses."""
        state = self._training_state
        losses, counts = self.compute_task_losses(
            x, y, y_pred, sample_weight, training=training
        )
        kept = getattr(state.local, "kept_losses", None)
        present = ops.cast(counts > 0, "float32")
        weighted, weights = self._task_objective.call(
            losses, present, training=training
        )
        if kept is not None:
            kept.extend([losses, counts, weighted])
        state.loss_means.update_state(ops.stop_gradient(losses), counts)
        if training:
            state.weight_means.update_state(ops.stop_gradient(weights), present)
            for gate in state.gate_means:
                gate.update_state()
        total = ops.sum(weighted)
        for extra in self.losses:
            total = total + ops.cast(ops.sum(extra), total.dtype)
        replicas = engine.num_replicas()
        return total if replicas == 1 else total / replicas

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the metrics of the tasks and returns all results."""
        state = self._training_state
        if state.metrics.entries:
            batch, membership = self._task_batch(
                x, y, y_pred, sample_weight, state.metrics.tasks
            )
            for task, part in batch.items():
                if part is None:
                    continue
                rows = None
                if membership is not None:
                    rows = membership[state.losses.task_names.index(task)]
                loss = state.losses.losses.get(task)
                elementwise = loss is not None and is_elementwise(loss)
                labels = task_labels(state.losses, task, part, rows)
                state.metrics.update_state(task, labels, elementwise)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns loss, task losses, task weights and metrics by name."""
        state = self._training_state
        if state is None:
            return super().get_metrics_result()
        own = {id(m) for m in self._own_metrics()}
        results = {}
        for metric in self.metrics:
            if id(metric) in own:
                continue
            value = metric.result()
            results.update(value if isinstance(value, dict) else {metric.name: value})
        results.update(state.loss_means.result())
        results.update(state.metrics.result())
        if not state.testing:
            for metric in state.of_training():
                results.update(metric.result())
        return results

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metric objects, the means of task losses and weights among them."""
        return [*super().metrics, *self._own_metrics()]

    def _own_metrics(self) -> list[keras.metrics.Metric]:
        state = getattr(self, "_training_state", None)
        if state is None:
            return []
        return [state.loss_means, *state.of_training(), *state.metrics.metrics]

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` returns, in its order."""
        if self._training_state is None:
            return super().metrics_names
        return list(self._without_weights(self.get_metrics_result()))

    def _without_weights(self, logs: dict[str, Any]) -> dict[str, Any]:
        of_training = {
            name
            for metric in self._training_state.of_training()
            for name in metric.result_names
        }
        return {key: value for key, value in logs.items() if key not in of_training}

    def _in_order(self, logs: dict[str, Any], names: Iterable[str]) -> Any:
        values = [logs[name] for name in names if name in logs]
        return values if len(values) != 1 else values[0]

    def _task_batch(
        self,
        x: Any,
        y: Any,
        y_pred: Any,
        sample_weight: Any,
        tasks: set[str] | None = None,
    ) -> tuple[dict[str, TaskBatch | None], Any]:
        """Splits a batch by task; with rows of several tasks, says whose each is."""
        tasks = self.task_names if tasks is None else tasks
        if self._task_input is not None:
            return self._conditioned_batch(x, y, y_pred, sample_weight, tasks)
        if not isinstance(y_pred, Mapping):
            raise ValueError(
                "A model without `task_input` must return a dict by task. "
                f"Received: {type(y_pred).__name__}"
            )
        y = self._check_labels(y, y_pred)
        sample_weight = weights_by_task(sample_weight, y)
        masks = self._masks(y_pred) or {}
        rows_from = self._rows_from(x)
        batch = {}
        for task in tasks:
            if task not in y_pred:
                raise ValueError(
                    f"The model returned nothing for task '{task}'. "
                    f"Received: outputs {sorted(y_pred)}"
                )
            batch[task] = None
            if y.get(task) is not None:
                batch[task] = TaskBatch(
                    y[task],
                    y_pred[task],
                    sample_weight.get(task),
                    masks.get(task),
                    rows_from.get(task),
                )
        return batch, None

    def _conditioned_batch(self, x, y, y_pred, sample_weight, tasks):
        if isinstance(y, Mapping) or isinstance(sample_weight, Mapping):
            raise ValueError(
                f"With task_input='{self._task_input}' each row belongs to one task: "
                "labels and sample weights are one array for all rows. "
                f"Received: y={kind(y)}, sample_weight={kind(sample_weight)}"
            )
        part = TaskBatch(y, y_pred, sample_weight, self._masks(y_pred))
        batch = {task: part for task in self.task_names if task in tasks}
        return batch, self._membership(x)

    def _membership(self, x: Any) -> Any:
        """Returns which rows belong to which task, boolean `(T, rows)`."""
        index = ops.convert_to_tensor(self._find_task_input(x))
        one_hot = len(index.shape) == 2 and index.shape[-1] != 1
        if one_hot:
            if index.shape[-1] != len(self._output_tasks):
                raise ValueError(
                    f"One-hot task input '{self._task_input}' must have one column "
                    f"for each of the {len(self._output_tasks)} tasks. Received: "
                    f"shape {tuple(index.shape)}"
                )
            membership = ops.transpose(ops.cast(index, "float32") > 0.5)
        else:
            index = ops.cast(ops.reshape(index, (1, -1)), "int32")
            ids = np.arange(len(self._output_tasks), dtype="int32")[:, None]
            membership = ops.equal(index, ids)
        columns = [self._output_tasks.index(task) for task in self.task_names]
        if columns != list(range(len(self._output_tasks))):
            membership = ops.take(membership, np.array(columns), axis=0)
        return membership

    def _find_task_input(self, x: Any) -> Any:
        if isinstance(x, Mapping):
            if self._task_input in x:
                return x[self._task_input]
        elif hasattr(self, "inputs"):
            names = [tensor.name for tensor in self.inputs]
            flat = keras.tree.flatten(x)
            if self._task_input in names and len(flat) == len(names):
                return flat[names.index(self._task_input)]
        raise ValueError(
            f"The inputs must hold '{self._task_input}', the task of each row. "
            f"Received: x={kind(x)}"
        )

    def _check_labels(self, y: Any, outputs: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(y, Mapping):
            raise ValueError(
                f"Labels must be a dict by task, of {self.task_names}. "
                f"Received: y={kind(y)}"
            )
        check_keys(y, outputs, "y")
        if not any(y.get(task) is not None for task in self.task_names):
            raise ValueError(
                f"Labels must be there for at least one task of {self.task_names}. "
                f"Received: y with keys {sorted(y)}"
            )
        return y

    @contextlib.contextmanager
    def _keep_task_losses(self) -> Iterator[list[Any]]:
        """Hands out the task losses and counts of the `compute_loss` inside."""
        # By thread, since each replica of TensorFlow has its own.
        local = self._training_state.local
        local.kept_losses = []
        try:
            yield local.kept_losses
        finally:
            local.kept_losses = None

    def _pack(self, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Stacks arrays of many tasks, which a batch is cut from much faster."""
        by_task = sample_weight is None or isinstance(sample_weight, Mapping)
        # Keras builds a model by a call with the labels as they are.
        if not (self.built and by_task and isinstance(y, Mapping)) or is_packed(y):
            return y, sample_weight
        return pack_arrays(y, sample_weight) or (y, sample_weight)

    def _task_cotangents(
        self, x: Any, y_pred: Any, gradients: Sequence[Any]
    ) -> list[tuple[int, Any]]:
        """Splits the gradients by the predictions into those of each task's loss.

        Returns, by task, the position of its output among the flat outputs and
        the gradient of its loss by that output.
        """
        if self._task_input is None:
            names = keras.tree.flatten({name: name for name in y_pred})
            positions = [names.index(task) for task in self.task_names]
            return [(position, gradients[position]) for position in positions]
        (gradient,) = gradients
        return [(0, part) for part in self._by_rows(x, gradient)]

    def _by_rows(self, x: Any, gradient: Any) -> list[Any]:
        """Splits a gradient by predictions into those of the rows of each task."""
        rows = ops.cast(self._membership(x), gradient.dtype)
        rows = ops.reshape(
            rows, (len(self.task_names), -1) + (1,) * (len(gradient.shape) - 1)
        )
        return [gradient * rows[task] for task in range(len(self.task_names))]

    def _prediction_masks(self) -> TensorMasks | None:
        """Returns what reads the masks of outputs, None if they never have any."""
        masks = TensorMasks()
        if hasattr(self, "output"):
            found = keras.tree.flatten(masks.read(self.output))
            if all(mask is None for mask in found):
                return None
        return masks

    def _masks(self, y_pred: Any) -> Any:
        """Returns the masks of outputs in their structure, or None."""
        state = self._training_state
        if state.masks is None:
            return None
        found = state.masks.read(y_pred)
        if state.kept_masks is None:
            return found
        if state.kept_masks:
            return state.kept_masks[0]
        state.kept_masks.append(found)
        return found

    @contextlib.contextmanager
    def _keep_masks(self) -> Iterator[None]:
        """Uses the masks that the loss found for the metrics of the step, too.

        On JAX the outputs lose their masks on the way out of `jax.grad`.
        """
        state = self._training_state
        state.kept_masks = []
        try:
            yield
        finally:
            state.kept_masks = None

    def _forward_state(self) -> list[keras.Variable]:
        """Variables that a forward pass may change: all but the weighting's."""
        own = {id(v) for v in self._task_objective.variables}
        return [v for v in self.non_trainable_variables if id(v) not in own]

    # Training and evaluation

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[str, Mapping[int, float]] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
    ) -> Any:
        """Trains the model, as `keras.Model.fit`, with two differences.

        Args:
            x: As in Keras.
            y: Dict of labels by task; tasks may be left out. One array where the
                model has a `task_input`.
            batch_size: As in Keras.
            epochs: As in Keras.
            verbose: As in Keras.
            callbacks: As in Keras.
            validation_split: As in Keras.
            validation_data: As in Keras; its sample weights may leave out tasks.
            shuffle: As in Keras.
            class_weight: Dict by task of weights by class, for example
                `{"income": {0: 1, 1: 8}}`; a class that is not named has 1. It
                multiplies the sample weights, also those of a data set.
            sample_weight: Dict of sample weights by task; tasks may be left out.
            initial_epoch: As in Keras.
            steps_per_epoch: As in Keras.
            validation_steps: As in Keras.
            validation_batch_size: As in Keras.
            validation_freq: As in Keras.

        Returns:
            A `keras.callbacks.History`. Beside `loss` it has `<task>_loss`, the
            mean unweighted loss, and `<task>_weight`, the mean weight in force.

        Raises:
            ValueError: A key is no task; a task index is out of range.
        """
        self._assert_compiled("fit")
        y, sample_weight = self._check_arrays(x, y, sample_weight)
        y, sample_weight = self._pack(y, sample_weight)
        if isinstance(validation_data, tuple) and len(validation_data) > 1:
            validation_data = self._check_validation(validation_data)
        self._set_class_weights(class_weight)
        try:
            with self._probing(callbacks):
                return super().fit(
                    x=x,
                    y=y,
                    batch_size=batch_size,
                    epochs=epochs,
                    verbose=verbose,
                    callbacks=self._with_epoch_end(callbacks),
                    validation_split=validation_split,
                    validation_data=validation_data,
                    shuffle=shuffle,
                    sample_weight=sample_weight,
                    initial_epoch=initial_epoch,
                    steps_per_epoch=steps_per_epoch,
                    validation_steps=validation_steps,
                    validation_batch_size=validation_batch_size,
                    validation_freq=validation_freq,
                )
        finally:
            self._set_class_weights(None)
            self._own_averaged_values()

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Evaluates the model, as `keras.Model.evaluate`.

        Without `return_dict` the results come as a list, in the order of
        `metrics_names`: the loss, the task losses, the metrics.
        """
        self._assert_compiled("evaluate")
        y, sample_weight = self._pack(*self._check_arrays(x, y, sample_weight))
        with self._testing():
            logs = super().evaluate(
                x=x,
                y=y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                steps=steps,
                callbacks=callbacks,
                return_dict=True,
                **kwargs,
            )
        logs = plain_logs(logs)
        return logs if return_dict else self._in_order(logs, self.metrics_names)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[str, Mapping[int, float]] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Trains on one batch; `class_weight` and `sample_weight` as in `fit`."""
        self._assert_compiled("train_on_batch")
        y, sample_weight = self._check_arrays(x, y, sample_weight)
        self._set_class_weights(class_weight)
        logs = plain_logs(
            super().train_on_batch(
                x, y=y, sample_weight=sample_weight, return_dict=True
            )
        )
        return logs if return_dict else self._in_order(logs, self.get_metrics_result())

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Evaluates one batch, as `keras.Model.test_on_batch`."""
        self._assert_compiled("test_on_batch")
        y, sample_weight = self._check_arrays(x, y, sample_weight)
        with self._testing():
            logs = super().test_on_batch(
                x, y=y, sample_weight=sample_weight, return_dict=True
            )
        logs = plain_logs(logs)
        return logs if return_dict else self._in_order(logs, self.metrics_names)

    @contextlib.contextmanager
    def _testing(self) -> Iterator[None]:
        """Leaves the task weights, which are those of training, out of results.

        Keras reports results of metrics only if a step returns all of them.
        """
        state = self._training_state
        state.testing = True
        try:
            yield
        finally:
            state.testing = False

    def _assert_compiled(self, method: str) -> None:
        if self._training_state is None:
            raise ValueError(f"Call `compile()` before `{method}()`.")

    def _check_arrays(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Checks labels given as arrays and completes their sample weights."""
        if y is None or is_packed(y):
            return y, sample_weight
        if self._task_input is not None:
            self._check_task_index(x)
            return y, sample_weight
        if not isinstance(y, Mapping):
            self._check_labels(y, {})
        outputs = self._output_tasks or self.task_names
        y = {task: labels for task, labels in y.items() if labels is not None}
        y = self._check_labels(y, outputs)
        absent = [task for task in self.task_names if task not in y]
        if absent:
            warnings.warn(
                f"There are no labels for tasks {absent}: they are not trained.",
                stacklevel=3,
            )
        if isinstance(sample_weight, Mapping):
            check_keys(sample_weight, outputs, "sample_weight")
            # Keras wants the structure of the labels.
            sample_weight = {
                task: np.ones(len(labels), "float32")
                if sample_weight.get(task) is None
                else sample_weight[task]
                for task, labels in y.items()
            }
        return y, sample_weight

    def _check_validation(self, data: tuple) -> tuple:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y, sample_weight = self._pack(*self._check_arrays(x, y, sample_weight))
        return (x, y) if sample_weight is None else (x, y, sample_weight)

    def _check_task_index(self, x: Any) -> None:
        index = self._find_task_input(x)
        if not isinstance(index, np.ndarray) or not index.size:
            return
        if index.ndim == 2 and index.shape[1] != 1:
            return
        low, high = index.min(), index.max()
        if low < 0 or high >= len(self._output_tasks):
            raise ValueError(
                f"Task input '{self._task_input}' must hold indices from 0 to "
                f"{len(self._output_tasks) - 1}. Received: {low} to {high}"
            )

    def _set_class_weights(self, class_weight: Any) -> None:
        weights = {}
        if class_weight:
            if not all(isinstance(v, Mapping) for v in class_weight.values()):
                if self._task_input is None:
                    raise ValueError(
                        "`class_weight` must be a dict by task of weights by class, "
                        f"such as {{'{self.task_names[0]}': {{0: 1.0, 1: 2.0}}}}. "
                        f"Received: class_weight={class_weight!r}"
                    )
                class_weight = dict.fromkeys(self.task_names, class_weight)
            check_keys(class_weight, self.task_names, "class_weight")
            weights = {t: dict(by_class) for t, by_class in class_weight.items()}
        losses = self._training_state.losses
        if weights != losses.class_weights:
            losses.class_weights = weights
            self.train_function = None  # it was traced with the others

    def _with_epoch_end(self, callbacks: Any) -> Any:
        """Adds the hook of weightings that go by epochs, before all callbacks."""
        if type(self.weighting).on_epoch_end is Weighting.on_epoch_end:
            return callbacks
        hook = _EpochEnd()
        if isinstance(callbacks, keras.callbacks.CallbackList):
            hook.set_model(self)
            callbacks.callbacks.insert(0, hook)
            return callbacks
        if callbacks is None:
            return [hook]
        if isinstance(callbacks, keras.callbacks.Callback):
            return [hook, callbacks]
        return [hook, *callbacks]

    def _own_averaged_values(self) -> None:
        """Gives weights an array of their own after a moving average was copied.

        On JAX, Keras lets the weight and its average be one array, which the next
        training step donates, so that the other is gone.
        """
        if getattr(self.optimizer, "use_ema", False):
            for variable in self.trainable_variables:
                variable.assign(ops.copy(variable))

    # Sharing

    def layer_tasks(
        self,
    ) -> list[tuple[keras.layers.Layer, tuple[str, ...]]]:
        """Returns each layer with the names of the tasks that it serves.

        A functional model reads it off its graph. A subclassed model overrides it:

        ```
        def layer_tasks(self):
            return [(self.trunk, ("a", "b")), (self.head_a, ("a",)), ...]
        ```

        Raises:
            ValueError: The model is subclassed and does not override it.
        """
        if not hasattr(self, "output"):
            raise ValueError(
                "Which layers a subclassed model shares cannot be read off its code: "
                "override `layer_tasks` to return pairs of a layer and its tasks. "
                f"Received: {type(self).__name__}, which does not override it"
            )
        return [(use.layer, use.tasks) for use in self._uses_in_graph()]

    def _uses_in_graph(self) -> list[LayerUse]:
        if self._task_input is not None:
            outputs = dict.fromkeys(self._output_tasks, self.output)
        else:
            outputs = dict(self.output)
        return uses_in_graph(self, outputs)

    def _layer_uses(self) -> list[LayerUse]:
        """As `layer_tasks`, with what holds parameters for each task."""
        own = type(self).layer_tasks is not MultiTaskModel.layer_tasks
        if own or not hasattr(self, "output"):
            return uses_of_pairs(self.layer_tasks())
        return self._uses_in_graph()

    def shared_layers(self) -> list[SharedLayer]:
        """Returns the layers that tasks share, from the input on.

        Returns:
            A list of `SharedLayer`, with the attributes `name`, `tasks` and
            `positions` of its variables in `trainable_variables`. Layers of layers
            are taken apart.
        """
        uses, variables = self._layer_uses(), self.trainable_variables
        tasks = self.task_names
        return shared_layers(uses, variables, make_plan(variables, uses, tasks), tasks)

    def sharing_summary(
        self, print_fn: Callable[[str], None] | None = None
    ) -> list[LayerSharing]:
        """Prints which parameters serve which tasks, and returns it as data.

        Args:
            print_fn: Called with each line. Defaults to `print`.

        Returns:
            A list of `LayerSharing`, one a layer that has parameters, with the
            attributes `layer`, `parameters`, `tasks` and `kind`: "shared",
            "private", "stacked" (one layer with parameters for each task) or
            "unused".
        """
        rows = sharing_rows(self._layer_uses())
        print_sharing(rows, len(self._output_tasks or self.task_names), print_fn)
        return rows

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """Trainable variables that serve two tasks or more."""
        return self._variables_where(lambda use: use.kind == "shared")

    def task_variables(self, task: str) -> list[keras.Variable]:
        """Returns the trainable variables that serve one task alone.

        Raises:
            ValueError: The task is unknown.
        """
        known = self._output_tasks or self.task_names
        if task not in known:
            raise ValueError(
                f"`task` must be one of {list(known)}. Received: task={task!r}"
            )
        return self._variables_where(lambda use: use.tasks == (task,))

    def _variables_where(
        self, condition: Callable[[LayerUse], bool]
    ) -> list[keras.Variable]:
        found = {}
        for use in self._layer_uses():
            if condition(use):
                found.update({id(v): v for v in use.layer.trainable_variables})
        return list(found.values())

    @property
    def gradient_norm_variable(self) -> keras.Variable:
        """The kernel of the last layer that all tasks share.

        Raises:
            ValueError: No layer with trainable variables serves all tasks.
        """
        tasks = set(self.task_names)
        for use in reversed(self._layer_uses()):
            if tasks <= set(use.tasks) and not use.stacked:
                kernels = [v for v in use.layer.trainable_variables if len(v.shape) > 1]
                if kernels:
                    return kernels[-1]
        raise ValueError(
            f"{type(self.weighting).__name__} compares gradients of a layer that "
            f"all tasks share. Received: a model whose tasks {sorted(tasks)} share no "
            "trainable layer"
        )

    def _check_gradient_norm_variable(self) -> None:
        if self.built:
            _ = self.gradient_norm_variable

    # Serialisation

    def get_config(self) -> dict[str, Any]:
        """Returns the graph of a functional model, and the tasks."""
        if not _takes_graph(type(self)):
            return super().get_config()
        config = {
            "name": self.name,
            "task_names": list(self._output_tasks) if self._output_tasks else None,
            "task_input": self._task_input,
        }
        if hasattr(self, "output"):
            network = keras.Model(self.input, self.output)
            config["network"] = keras.saving.serialize_keras_object(network)
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "MultiTaskModel":
        """Makes the model that `get_config` describes."""
        config = dict(config)
        network = config.pop("network", None)
        if network is None:
            return cls(**config)
        network = keras.saving.deserialize_keras_object(network, custom_objects)
        return cls(network.input, network.output, **config)


class _EpochEnd(keras.callbacks.Callback):
    """Tells the weighting that an epoch has ended."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.weighting.on_epoch_end(epoch, logs)


_VARIANTS: dict[tuple[type, type], type] = {}


def _functional_variant(cls: type, functional: type) -> type:
    """Returns `cls` as a functional model, leaving `cls` itself as it is.

    Keras would insert its functional model among the bases of `cls`, after which no
    subclass could define a `call` of its own.
    """
    key = cls, functional
    if key not in _VARIANTS:
        namespace = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        namespace["__doc__"] = cls.__doc__
        variant = _VARIANTS[key] = type(cls.__name__, (cls, functional), namespace)
        package, separator, name = keras.saving.get_registered_name(cls).partition(">")
        if separator:
            # Both are saved under one name, which is to give `cls` when loaded.
            register = keras.saving.register_keras_serializable(package, name)
            register(variant)
            register(cls)
    return _VARIANTS[key]


def _takes_graph(cls: type) -> bool:
    """Whether the constructor is that of `MultiTaskModel` or passes all on to it."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    kinds = {parameter.kind for parameter in parameters}
    names = [parameter.name for parameter in parameters]
    passes_on = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return names[1:3] == ["inputs", "outputs"] or passes_on <= kinds
