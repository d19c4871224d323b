"""What hypermodels have in common: the training of a trial, and what is kept of it."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_mtl.argument_checks import check_count
from keras_mtl.tuning.hopeless_trials import StopHopelessTrial
from keras_mtl.tuning.hyperparameters import choose, choose_number
from keras_mtl.tuning.trial_record import TrialRecord, read_record, write_record


class RecordedHyperModel(keras_tuner.HyperModel):
    """Trains trials: within a budget of parameters, with a record of each.

    Args:
        blocks: Non-empty list of layers, or of functions that return one.
        width: List of factors for the units and filters of all blocks.
        max_parameters: Integer or `None`. A setting with more is rejected before it is
            trained.
        optimizer: Function of hyperparameters that returns an optimizer, or `None` for
            Adam with a `"learning_rate"` between 1e-4 and 1e-2.
        sampling: List of values for the `sampling` of a `data.TaskMixture`, or `None`.
        stop_hopeless_after: Integer or `None`; see `StopHopelessTrial`.
        compile_arguments: Dict of further arguments of `compile`.
        name: String or `None`. Name of the hypermodel.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        width: Sequence[float],
        max_parameters: int | None,
        optimizer: Callable[[Any], Any] | None,
        sampling: Sequence[str | float] | None,
        stop_hopeless_after: int | None,
        compile_arguments: Mapping[str, Any] | None,
        name: str | None,
    ) -> None:
        super().__init__(name=name)
        if isinstance(blocks, str) or not blocks:
            raise ValueError(
                "`blocks` must be a list of layers, or of functions that return one. "
                f"Received: blocks={blocks!r}"
            )
        if any(not 0 < factor for factor in width) or not width:
            raise ValueError(
                f"`width` must be a list of positive factors. Received: width={width!r}"
            )
        if max_parameters is not None:
            check_count("max_parameters", max_parameters)
        if stop_hopeless_after is not None:
            check_count("stop_hopeless_after", stop_hopeless_after)
        self.blocks = list(blocks)
        self.width = [float(factor) for factor in width]
        self.max_parameters = max_parameters
        self.optimizer = optimizer
        self.sampling = None if sampling is None else list(sampling)
        self.stop_hopeless_after = stop_hopeless_after
        self.compile_arguments = dict(compile_arguments or {})

    def about(self, model: keras.Model) -> dict[str, Any]:
        """Returns what the record of a trial says of its model, for JSON."""
        return {}

    def make_optimizer(self, hp: Any) -> Any:
        """Returns the optimizer that hyperparameters say."""
        if self.optimizer is not None:
            return self.optimizer(hp)
        rate = choose_number(hp, "learning_rate", 1e-4, 1e-2, 1e-3, sampling="log")
        return keras.optimizers.Adam(rate)

    def choose_width(self, hp: Any) -> float:
        """Returns the factor for the units of all blocks."""
        if len(self.width) == 1:
            return self.width[0]
        return choose(hp, "width", self.width)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains a model, unless it has too many parameters.

        Args:
            hp: Hyperparameters.
            model: The model that `build` has made of them.
            *args: Arguments of `fit`, from `search`.
            **kwargs: Arguments of `fit`, from `search`.

        Returns:
            What `fit` returns.

        Raises:
            keras_tuner.errors.FailedTrialError: If the model has too many parameters,
                or the objective is finite in no epoch.
        """
        callbacks = list(kwargs.pop("callbacks", None) or [])
        tuner, folder = _tuner_and_folder(callbacks)
        about = self.about(model)
        self._reject_if_too_large(model, tuner, folder, about)
        record = TrialRecord(folder, about)
        ours: list[keras.callbacks.Callback] = [record]
        if self.stop_hopeless_after is not None and tuner is not None:
            ours.append(StopHopelessTrial(record, tuner, self.stop_hopeless_after))
        args, kwargs = self._with_sampling(hp, args, kwargs)
        ours.append(_FailuresAreAllowed(tuner))
        try:
            history = model.fit(*args, callbacks=[*ours, *callbacks], **kwargs)
            _check_finite(tuner, record.execution.get("epochs", {}).values())
            return history
        except Exception as error:
            if folder is not None:
                # Keras Tuner's workers do not tell the chief why a trial has failed.
                known = read_record(folder) or {**about, "executions": []}
                message = f"{type(error).__name__}: {error}".strip()
                write_record(folder, {**known, "failed": message.splitlines()[0]})
            if _out_of_memory(error):
                _allow_failures(tuner)
            raise

    def _reject_if_too_large(
        self, model: keras.Model, tuner: Any, folder: Path | None, about: dict
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


def _check_finite(tuner: Any, epochs: Iterable[Mapping[str, float]]) -> None:
    """Raises an error if the objective is finite in no epoch.

    Keras Tuner takes infinity for a result, and has no reason for NaN.

    Raises:
        keras_tuner.errors.FailedTrialError: If so.
    """
    objective = getattr(getattr(tuner, "oracle", None), "objective", None)
    if objective is None:
        return
    values = [objective.get_value(e) for e in epochs if objective.has_value(e)]
    if values and not any(map(math.isfinite, values)):
        raise keras_tuner.errors.FailedTrialError(
            f"{objective.name} is not finite in any epoch."
        )


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


def call_with(block: Any, hp: Any) -> Any:
    """Returns the layer that a function of hyperparameters, or of nothing, makes."""
    if isinstance(block, keras.layers.Layer) or not callable(block):
        return block
    return block(hp) if _takes_argument(block) else block()


def of_its_own(given: Any) -> Any:
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
