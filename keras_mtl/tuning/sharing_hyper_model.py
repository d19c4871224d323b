"""A Keras Tuner hypermodel that searches over sharing architectures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from keras_mtl.data.only_tasks import of_tasks
from keras_mtl.models.multi_task_model import MultiTaskModel
from keras_mtl.tuning.recorded_hyper_model import (
    RecordedHyperModel,
    call_with,
    of_its_own,
)
from keras_mtl.tuning.sharing_choices import (
    choose_sharing,
    declare_sharing,
    kinds_that_fit,
)
from keras_mtl.tuning.sharing_plan import SharingPlan
from keras_mtl.tuning.training_choices import choose_aggregator, choose_weighting
from keras_mtl.tuning.tree_ranking import rank_trees


class SharingHyperModel(RecordedHyperModel):
    """Builds and trains networks of which tuners search the best way to share.

    An ordinary `keras_tuner.HyperModel`: any tuner takes it. The hyperparameters, and
    when each is active, are in the guide "Search for what to share".

    Args:
        inputs: `keras.Input`, or a nest of them. Each model gets inputs like them.
        blocks: List of functions of hyperparameters that return a layer, or of layers:
            the network from input to heads. A block is copied from its config as often
            as the architecture needs it.
        heads: Dict by task of functions that return a layer, or of layers.
        loss: As in `MultiTaskModel.compile`.
        metrics: As in `MultiTaskModel.compile`. Defaults to none.
        sharing: What may be searched: a list of kinds, or `"per_block"`; see
            `choose_sharing`. Defaults to all kinds that fit.
        weighting: List of loss weightings, see `choose_weighting`. Defaults to
            `["equal"]`.
        aggregator: List of aggregators, see `choose_aggregator`. Defaults to `[None]`.
            Networks that share nothing are trained without.
        aggregate_at: List of places where they aggregate. Defaults to
            `["parameters"]`.
        width: List of factors for the units and filters of all blocks, by the
            hyperparameter `"width"`. Defaults to `[1.0]`.
        max_parameters: Integer. A setting with more parameters is rejected before it is
            trained: its trial is `"FAILED"`, with a message that says why. Defaults to
            `None`, no bound.
        optimizer: Function of hyperparameters that returns an optimizer. Defaults to
            Adam with a `"learning_rate"` between 1e-4 and 1e-2.
        stem: Layer, which is copied, or function, which makes its layers when it is
            called, from inputs to one tensor for all tasks, such as a table of
            embeddings. Defaults to `None`, for one input.
        affinity: Matrix `(T, T)` of how much a step for task i (row) lowers the loss of
            task j (column), in the order of `heads`; see `group_tasks`. Trees are then
            the `num_trees` best by it, and the first of them are drawn most often.
            Defaults to `None`, all trees alike.
        num_trees: Integer, trees to choose from with `affinity`, or `None` for all.
            Defaults to 16.
        together: List of lists of tasks that are not parted, in any architecture.
            Defaults to none.
        sampling: List of values for the `sampling` of a `data.TaskMixture`, which the
            training data must then be, by the hyperparameter `"sampling"`: names, or
            temperatures. Defaults to `None`, as the mixture is.
        stop_hopeless_after: Integer: from that epoch on a trial is stopped whose best
            epoch is worse than the median of what the others had on average until then
            (after five of them). Defaults to `None`, none is stopped.
        compile_arguments: Dict of further arguments of `MultiTaskModel.compile`.
        name: String, optional. Name of the hypermodel.

    Raises:
        ValueError: If an argument is out of range, at once.

    Example:

    ```python
    import keras_tuner

    space = keras_mtl.tuning.SharingHyperModel(
        inputs=keras.Input((8,)),
        blocks=[lambda hp: keras.layers.Dense(hp.Choice("units", [8, 16]), "relu")] * 2,
        heads={"a": lambda: keras.layers.Dense(1), "b": lambda: keras.layers.Dense(1)},
        loss={"a": "mse", "b": "mse"},
    )
    model = space.build(keras_tuner.HyperParameters())
    print(keras_mtl.tuning.sharing_tree(model))
    # block 0: a + b
    # block 1: a + b
    ```
    """

    def __init__(
        self,
        inputs: Any,
        blocks: Sequence[Any],
        heads: Mapping[str, Any],
        loss: Any,
        metrics: Any = None,
        sharing: Sequence[str] | str | None = None,
        weighting: Sequence[Any] = ("equal",),
        aggregator: Sequence[Any] = (None,),
        aggregate_at: Sequence[str] = ("parameters",),
        width: Sequence[float] = (1.0,),
        max_parameters: int | None = None,
        optimizer: Callable[[Any], Any] | None = None,
        stem: Callable[[Any], Any] | None = None,
        affinity: Any = None,
        num_trees: int | None = 16,
        together: Sequence[Sequence[str]] = (),
        sampling: Sequence[str | float] | None = None,
        stop_hopeless_after: int | None = None,
        compile_arguments: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            blocks,
            width,
            max_parameters,
            optimizer,
            sampling,
            stop_hopeless_after,
            compile_arguments,
            name,
        )
        if not isinstance(heads, Mapping) or not heads:
            raise ValueError(
                f"`heads` must be a dict by task. Received: heads={heads!r}"
            )
        self.inputs = inputs
        self.heads = dict(heads)
        self.loss = loss
        self.metrics = metrics
        self.weighting = list(weighting)
        self.aggregator = list(aggregator)
        self.aggregate_at = list(aggregate_at)
        self.stem = stem
        self.units = _units(list(heads), together)
        self.trees = None
        if affinity is not None:
            self.trees = rank_trees(
                affinity, self.units, list(heads), len(self.blocks), num_trees
            )
        self.sharing = kinds_that_fit(sharing, self.units, self.trees)
        choose_weighting(keras_tuner.HyperParameters(), self.weighting)
        choose_aggregator(
            keras_tuner.HyperParameters(), self.aggregator, self.aggregate_at
        )

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks."""
        return list(self.heads)

    def about(self, model: keras.Model) -> dict[str, Any]:
        """Returns the sharing of a model, as text and as data."""
        plan = getattr(model, "sharing_plan", None)
        if plan is None:
            return {}
        return {"sharing": str(plan), "tree": plan.tree.to_dict()}

    def declare_hyperparameters(self, hp: Any) -> None:
        """Enters the hyperparameters of all architectures."""
        declare_sharing(hp, self.units, len(self.blocks), self.sharing, self.trees)

    def plan(self, hp: Any) -> SharingPlan:
        """Returns the architecture that hyperparameters say."""
        return choose_sharing(
            hp, self.units, len(self.blocks), self.sharing, self.trees
        )

    def build(self, hp: Any) -> MultiTaskModel:
        """Returns the compiled model that hyperparameters say."""
        return self.build_plan(hp, self.plan(hp))

    def build_plan(self, hp: Any, plan: SharingPlan) -> MultiTaskModel:
        """Returns a compiled model of an architecture of your own.

        Args:
            hp: Hyperparameters of all the rest: blocks, optimizer, weighting, width.
            plan: A `SharingPlan` for some or all of the tasks.
        """
        inputs = keras.tree.map_structure(
            lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name), self.inputs
        )
        kept = [task for task in self.heads if task in plan.tree.tasks]
        model = plan.build(
            inputs,
            [call_with(block, hp) for block in self.blocks],
            {task: _head(self.heads[task], hp) for task in kept},
            width=self.choose_width(hp),
            stem=of_its_own(self.stem),
        )
        arguments = dict(self.compile_arguments)
        if "loss_weights" in arguments:
            arguments["loss_weights"] = of_tasks(arguments["loss_weights"], kept)
        if len(kept) > 1:
            arguments["weighting"] = choose_weighting(hp, self.weighting)
            aggregated = choose_aggregator(hp, self.aggregator, self.aggregate_at)
            # Of independent networks there is nothing to aggregate.
            arguments |= aggregated if model.shared_variables else {}
        model.compile(
            self.make_optimizer(hp),
            loss=of_tasks(self.loss, kept),
            metrics=of_tasks(self.metrics, kept),
            **arguments,
        )
        return model


def _units(
    tasks: Sequence[str], together: Sequence[Sequence[str]]
) -> list[str | tuple[str, ...]]:
    """Returns tasks, and in place of the first of each group that group."""
    grouped = [task for group in together for task in group]
    unknown = [task for task in grouped if task not in tasks]
    if unknown or len(set(grouped)) < len(grouped):
        raise ValueError(
            f"`together` must be lists of some of {list(tasks)}, each task once. "
            f"Received: together={together!r}"
        )
    ordered = [tuple(t for t in tasks if t in group) for group in together]
    first = {group[0]: group for group in ordered if group}
    return [
        first.get(task, task) for task in tasks if task in first or task not in grouped
    ]


def _head(head: Any, hp: Any) -> Any:
    """Returns the layers of a head, copies where it was given layers."""
    if isinstance(head, list | tuple):
        return [_head(layer, hp) for layer in head]
    if isinstance(head, keras.layers.Layer):
        return of_its_own(head)
    return call_with(head, hp)
