"""Stops trials that are worse than others were."""

from math import inf, isfinite
from pathlib import Path
from statistics import mean, median
from typing import Any

import keras

from keras_mtl.tuning.trial_record import TrialRecord, read_record

_ENOUGH = 5


class StopHopelessTrial(keras.callbacks.Callback):
    """Stops a trial whose best epoch is worse than the median of others' averages.

    At epoch e it is compared with the mean of each earlier trial over its epochs until
    e, once there are five. What is known of the others is read from the folders of
    their trials, so that workers on other machines, and earlier runs, count as well.
    Where Hyperband goes on with the weights of another trial, epochs are counted from
    there, and trials compared with those that go on from the same epoch.

    Args:
        record: The `TrialRecord` of this trial.
        tuner: The tuner.
        after: Integer, epochs that every trial has.

    Reference:
        Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017,
        https://doi.org/10.1145/3097983.3098043
    """

    def __init__(self, record: TrialRecord, tuner: Any, after: int) -> None:
        super().__init__()
        self.record = record
        self.tuner = tuner
        self.after = after

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the training where it is hopeless."""
        objective = self.tuner.oracle.objective
        epochs = self.record.execution["epochs"]
        if len(epochs) < self.after or not objective.has_value(logs or {}):
            return
        sign = 1 if objective.direction == "max" else -1
        values = [sign * objective.get_value(logs) for logs in epochs.values()]
        best = max(filter(isfinite, values), default=-inf)
        others = [
            mean(sign * objective.get_value(logs) for logs in curve)
            for curve in self._others(min(map(int, epochs)), epoch)
        ]
        others = list(filter(isfinite, others))
        if len(others) >= _ENOUGH and best < median(others):
            self.record.execution["stopped"] = (
                f"after epoch {epoch}: its best {objective.name} {sign * best:.4g} is "
                f"worse than {sign * median(others):.4g}, the median of the means of "
                f"{len(others)} trials"
            )
            self.record.write()
            self.model.stop_training = True

    def _others(self, first: int, epoch: int) -> list[list[dict[str, float]]]:
        """Returns the logs of other trials until an epoch, of their last executions.

        Of those that have begun with the same epoch.
        """
        objective, curves = self.tuner.oracle.objective, []
        for folder in Path(self.tuner.project_dir).glob("trial_*"):
            record = read_record(folder)
            if folder == self.record.folder or not record or not record["executions"]:
                continue
            epochs = record["executions"][-1]["epochs"]
            if str(epoch) not in epochs or min(map(int, epochs)) != first:
                continue
            curves.append(
                [
                    logs
                    for number, logs in epochs.items()
                    if int(number) <= epoch and objective.has_value(logs)
                ]
            )
        return [curve for curve in curves if curve]
