"""A Keras Tuner hypermodel that searches over sharing architectures."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_mtl.argument_checks import check_count
from keras_mtl.models.multi_task_model import MultiTaskModel
from keras_mtl.tuning.hopeless_trials import StopHopelessTrial
from keras_mtl.tuning.hyperparameters import choose, choose_number
from keras_mtl.tuning.sharing_choices import (
    check_sharing,
    choose_sharing,
    declare_sharing,
)
from keras_mtl.tuning.sharing_plan import SharingPlan
from keras_mtl.tuning.training_choices import choose_aggregator, choose_weighting
from keras_mtl.tuning.tree_choices import as_units
from keras_mtl.tuning.tree_ranking import rank_trees
from keras_mtl.tuning.trial_record import TrialRecord, write_record


class SharingHyperModel(keras_tuner.HyperModel):
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
            `choose_sharing`. Defaults to all kinds.
        weighting: List of loss weightings, see `choose_weighting`. Defaults to
            `["equal"]`.
        aggregator: List of aggregators, see `choose_aggregator`. Defaults to `[None]`.
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
        super().__init__(name=name)
        if isinstance(blocks, str) or not blocks:
            raise ValueError(
                "`blocks` must be a list of layers, or of functions that return one. "
                f"Received: blocks={blocks!r}"
            )
        if not isinstance(heads, Mapping) or not heads:
            raise ValueError(
                f"`heads` must be a dict by task. Received: heads={heads!r}"
            )
        if any(not 0 < factor for factor in width) or not width:
            raise ValueError(
                f"`width` must be a list of positive factors. Received: width={width!r}"
            )
        if max_parameters is not None:
            check_count("max_parameters", max_parameters)
        if stop_hopeless_after is not None:
            check_count("stop_hopeless_after", stop_hopeless_after)
        self.inputs = inputs
        self.blocks = list(blocks)
        self.heads = dict(heads)
        self.loss = loss
        self.metrics = metrics
        self.sharing = check_sharing(sharing)
        self.weighting = list(weighting)
        self.aggregator = list(aggregator)
        self.aggregate_at = list(aggregate_at)
        self.width = [float(factor) for factor in width]
        self.max_parameters = max_parameters
        self.optimizer = optimizer
        self.stem = stem
        self.sampling = None if sampling is None else list(sampling)
        self.stop_hopeless_after = stop_hopeless_after
        self.compile_arguments = dict(compile_arguments or {})
        self.units = _units(list(heads), together)
        if affinity is None and set(self.sharing) & {"branch", "per_block"}:
            as_units(self.units)
        self.trees = None
        if affinity is not None:
            self.trees = rank_trees(
                affinity, self.units, list(heads), len(self.blocks), num_trees
            )
        choose_weighting(keras_tuner.HyperParameters(), self.weighting)
        choose_aggregator(
            keras_tuner.HyperParameters(), self.aggregator, self.aggregate_at
        )

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks."""
        return list(self.heads)

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
            [_call(block, hp) for block in self.blocks],
            {task: _head(self.heads[task], hp) for task in kept},
            width=self.width[0]
            if len(self.width) == 1
            else choose(hp, "width", self.width),
            stem=_of_its_own(self.stem),
        )
        if self.optimizer is None:
            rate = choose_number(hp, "learning_rate", 1e-4, 1e-2, 1e-3, sampling="log")
            optimizer = keras.optimizers.Adam(rate)
        else:
            optimizer = self.optimizer(hp)
        arguments = dict(self.compile_arguments)
        if len(kept) > 1:
            arguments["weighting"] = choose_weighting(hp, self.weighting)
            arguments |= choose_aggregator(hp, self.aggregator, self.aggregate_at)
        model.compile(
            optimizer,
            loss=_of_tasks(self.loss, kept),
            metrics=_of_tasks(self.metrics, kept),
            **arguments,
        )
        return model

    def fit(self, hp: Any, model: MultiTaskModel, *args: Any, **kwargs: Any) -> Any:
        """Trains a model, unless it has too many parameters.

        Args:
            hp: Hyperparameters.
            model: The model that `build` has made of them.
            *args: Arguments of `fit`, from `search`.
            **kwargs: Arguments of `fit`, from `search`.

        Returns:
            What `fit` returns.

        Raises:
            keras_tuner.errors.FailedTrialError: If the model has too many parameters.
        """
        callbacks = list(kwargs.pop("callbacks", None) or [])
        tuner, folder = _tuner_and_folder(callbacks)
        plan = getattr(model, "sharing_plan", None)
        about = {
            "sharing": str(plan) if plan else None,
            "tree": plan.tree.to_dict() if plan else None,
        }
        self._reject_if_too_large(model, tuner, folder, about)
        record = TrialRecord(folder, about)
        ours: list[keras.callbacks.Callback] = [record]
        if self.stop_hopeless_after is not None and tuner is not None:
            ours.append(StopHopelessTrial(record, tuner, self.stop_hopeless_after))
        args, kwargs = self._with_sampling(hp, args, kwargs)
        ours.append(_FailuresAreAllowed(tuner))
        try:
            return model.fit(*args, callbacks=[*ours, *callbacks], **kwargs)
        except Exception as error:
            if _out_of_memory(error):
                _allow_failures(tuner)
            raise

    def _reject_if_too_large(
        self, model: MultiTaskModel, tuner: Any, folder: Path | None, about: dict
    ) -> None:
        parameters = model.count_params()
        if self.max_parameters is None or parameters <= self.max_parameters:
            return
        message = (
            f"Rejected before training: {parameters:,} parameters, and "
            f"`max_parameters` is {self.max_parameters:,}."
        )
        if folder is not None:
            write_record(
                folder,
                {
                    **about,
                    "executions": [],
                    "parameters": parameters,
                    "rejected": message,
                },
            )
        print(message)
        _allow_failures(tuner)
        raise keras_tuner.errors.FailedTrialError(message)

    def _with_sampling(self, hp: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if self.sampling is None:
            return args, kwargs
        data = args[0] if args else kwargs.get("x")
        if not hasattr(data, "with_sampling"):
            raise ValueError(
                "`sampling` is searched with a `keras_mtl.data.TaskMixture` as the "
                f"training data. Received: {type(data)}"
            )
        names = [str(value) for value in self.sampling]
        chosen = names.index(choose(hp, "sampling", names))
        data = data.with_sampling(self.sampling[chosen])
        if args:
            return (data, *args[1:]), kwargs
        return args, {**kwargs, "x": data}


class _FailuresAreAllowed(keras.callbacks.Callback):
    """Lets a search go on after failed trials, once one has trained an epoch."""

    def __init__(self, tuner: Any) -> None:
        super().__init__()
        self.tuner = tuner

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        _allow_failures(self.tuner)


def _allow_failures(tuner: Any) -> None:
    """Lets a search go on however many trials fail one after another.

    By default Keras Tuner ends it after three, which is right for an error in the
    program, and wrong for settings that are too large or diverge.
    """
    oracle = getattr(tuner, "oracle", None)
    if oracle is not None and hasattr(oracle, "max_consecutive_failed_trials"):
        oracle.max_consecutive_failed_trials = math.inf


def _out_of_memory(error: Exception) -> bool:
    kinds = {cls.__name__ for cls in type(error).__mro__}
    return bool(
        kinds & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}
    ) or ("out of memory" in str(error).lower())


def _tuner_and_folder(callbacks: Sequence[Any]) -> tuple[Any, Path | None]:
    """Returns the tuner of a trial and its folder, of Keras Tuner's own callback."""
    for callback in callbacks:
        tuner, trial = (getattr(callback, name, None) for name in ("tuner", "trial"))
        if tuner is not None and trial is not None:
            return tuner, Path(tuner.get_trial_dir(trial.trial_id))
    return None, None


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


def _of_tasks(given: Any, tasks: Sequence[str]) -> Any:
    """Returns the part of a dict by task that is of these tasks."""
    if isinstance(given, Mapping) and "class_name" not in given:
        return {task: value for task, value in given.items() if task in tasks}
    return given


def _call(block: Any, hp: Any) -> Any:
    """Returns the layer that a function of hyperparameters, or of nothing, makes."""
    if isinstance(block, keras.layers.Layer) or not callable(block):
        return block
    return block(hp) if _takes_argument(block) else block()


def _head(head: Any, hp: Any) -> Any:
    """Returns the layers of a head, copies where it was given layers."""
    if isinstance(head, list | tuple):
        return [_head(layer, hp) for layer in head]
    if isinstance(head, keras.layers.Layer):
        return _of_its_own(head)
    return _call(head, hp)


def _of_its_own(given: Any) -> Any:
    """Returns a copy of a layer, which a trial trains, and anything else as it is."""
    if isinstance(given, keras.layers.Layer):
        return type(given).from_config(given.get_config())
    return given


def _takes_argument(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return any(
        parameter.kind in positional and parameter.default is parameter.empty
        for parameter in parameters
    )
