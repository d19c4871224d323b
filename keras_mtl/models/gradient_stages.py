"""How a model is cut in stages, which are differentiated task by task."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.engine.gradient_plan import GradientPlan, make_plan, place_in_stages
from keras_mtl.engine.gradient_probe import GradientProbe
from keras_mtl.engine.stages import Stages
from keras_mtl.engine.task_gradients import AggregatedStep, AggregationOptions
from keras_mtl.models.aggregation_setup import (
    PARAMETERS,
    REPRESENTATION,
    build_aggregator,
)
from keras_mtl.models.forward_stages import (
    stages_of_call,
    stages_of_graph,
    stages_round_layer,
)


class GradientStages:
    """Mixin of `MultiTaskModel`: what its training step asks about task gradients.

    That is for aggregators and for the probes of callbacks. What is made once is kept
    in the `_training_state` that `compile` makes.
    """

    def _prepare_aggregator(
        self, aggregator: Aggregator, tasks: list[str], training: Any
    ) -> None:
        """Cuts the model where its tasks part, and builds the aggregator."""
        if not self.built:
            raise ValueError(
                "An aggregator needs the variables of the model: build it before "
                "`compile`, by a call on a batch. "
                f"Received: {type(self).__name__}, which is not built"
            )
        plan, stages = self._make_gradient_plan(tasks, training.aggregate_at)
        build_aggregator(
            aggregator,
            tasks,
            plan,
            stages,
            self.trainable_variables,
            training.aggregation.at_representation,
        )

    def _make_gradient_plan(
        self, tasks: Sequence[str], aggregate_at: str
    ) -> tuple[GradientPlan, Stages]:
        """Sorts the trainable variables, as they are now, by whom they serve."""
        variables = self.trainable_variables
        plan = make_plan(variables, self._layer_uses(), list(tasks))
        stages = self._forward_stages(tasks, plan, aggregate_at)
        place_in_stages(plan, variables, stages)
        return plan, stages

    def _forward_stages(
        self, tasks: Sequence[str], plan: GradientPlan, aggregate_at: str
    ) -> Stages:
        if aggregate_at not in (PARAMETERS, REPRESENTATION):
            layer = self._layer_to_cut(aggregate_at)
            return stages_round_layer(self, self._variables_of_call, layer, tasks)
        if self._runs_graph and self._task_input is None:
            variables = self.trainable_variables
            shared = {id(variables[position]) for position in plan.shared}
            return stages_of_graph(self, dict(self.output), tasks, shared)
        if aggregate_at == REPRESENTATION and self._task_input is None:
            raise ValueError(
                "Where the tasks of a subclassed model part cannot be read off its "
                "code: pass the name of the layer whose output all tasks read. "
                f"Received: aggregate_at={aggregate_at!r}"
            )
        return stages_of_call(
            self, self._variables_of_call, tasks, self._task_input is not None
        )

    def _variables_of_call(self) -> list[keras.Variable]:
        """Trainable variables that predictions depend on: not the weighting's."""
        own = {id(variable) for variable in self._task_objective.variables}
        return [v for v in self.trainable_variables if id(v) not in own]

    def _layer_to_cut(self, name: str) -> keras.layers.Layer:
        if self._task_input is not None:
            raise ValueError(
                "With a `task_input` each row belongs to one task, so that gradients "
                "of two tasks by a tensor of rows never meet: aggregate at "
                f"'parameters'. Received: aggregate_at={name!r}"
            )
        found = [layer for layer in self._flatten_layers() if layer.name == name]
        if not found:
            raise ValueError(
                "`aggregate_at` must be 'parameters', 'representation' or the name of "
                f"a layer, such as one of {[layer.name for layer in self.layers]}. "
                f"Received: aggregate_at={name!r}"
            )
        return found[0]

    @property
    def _gradient_plan(self) -> tuple[GradientPlan, Stages]:
        """The plan of a step, made anew only if other variables are trained.

        It takes a walk over the graph, which on PyTorch would be one each step.
        """
        state = self._training_state
        trained = [id(variable) for variable in self.trainable_variables]
        if state.gradient_plan is None or state.gradient_plan[0] != trained:
            plan, stages = self._make_gradient_plan(self.task_names, state.aggregate_at)
            state.gradient_plan = trained, plan, stages
        return state.gradient_plan[1:]

    @property
    def _aggregation_options(self) -> AggregationOptions:
        return self._training_state.aggregation

    @property
    def _gradient_probes(self) -> Sequence[GradientProbe]:
        return self._training_state.gradient_probes

    @property
    def _probed_plan(self) -> tuple[GradientPlan, Stages]:
        """The plan of what probes measure: gradients by the shared parameters."""
        return self._training_state.probed_plan

    @property
    def _learning_rate(self) -> Any:
        return getattr(self.optimizer, "inner_optimizer", self.optimizer).learning_rate

    @contextlib.contextmanager
    def _probing(self, callbacks: Any) -> Iterator[None]:
        """Has the training step measure what callbacks ask for, inside it.

        A callback asks by a method `make_gradient_probe`, which is called with the
        model and returns a `GradientProbe`.
        """
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        makers = [
            callback.make_gradient_probe
            for callback in keras.tree.flatten(callbacks)
            if hasattr(callback, "make_gradient_probe")
        ]
        if makers and not self.built:
            raise ValueError(
                "Callbacks that measure gradients need the variables of the model: "
                "build it before `fit`, by a call on a batch. "
                f"Received: {type(self).__name__}, which is not built"
            )
        if not makers and not self._gradient_probes:
            yield
            return
        state = self._training_state
        before = state.gradient_probes, state.probed_plan, self.train_function
        if makers:
            state.probed_plan = self._make_gradient_plan(self.task_names, PARAMETERS)
        state.gradient_probes = [make(self) for make in makers]
        self.train_function = None  # It was made with others, or without.
        try:
            yield
        finally:
            state.gradient_probes, state.probed_plan, function = before
            if self._training_state is state:  # Not compiled anew.
                self.train_function = function

    def _weighted_losses(self, x: Any, y: Any, sample_weight: Any, y_pred: Any) -> Any:
        """Returns the losses that the objective sums, and leaves all state as it is."""
        return self._probed_losses(x, y, sample_weight, y_pred)[-1]

    def _probed_losses(
        self, x: Any, y: Any, sample_weight: Any, y_pred: Any, weighted: bool = True
    ) -> list[Any]:
        """Returns losses, numbers of labels, and what is to be differentiated.

        Those are the losses that the objective sums, if `weighted`, else the losses
        again. All state is left as it is.
        """
        state = self._training_state
        # The masks that a step keeps are those of another batch.
        kept, state.kept_masks = state.kept_masks, None
        losses, counts = self.compute_task_losses(
            x, y, y_pred, sample_weight, training=True
        )
        state.kept_masks = kept
        if not weighted:
            return [losses, counts, losses]
        present = ops.cast(counts > 0, "float32")
        summed = self._task_objective.call(losses, present, training=False)[0]
        return [losses, counts, summed]

    def _report_gradients(self, step: AggregatedStep) -> None:
        """Adds what a step has found out to the statistics of gradients."""
        statistics = self._training_state.gradient_statistics
        if statistics is not None:
            counted = True if step.due is None else step.due
            statistics.update_state(step.gramian, step.weights, step.present, counted)
