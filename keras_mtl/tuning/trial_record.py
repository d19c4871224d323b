"""What is written down of each trial, beside what Keras Tuner writes."""

import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

FILE = "record.json"


class TrialRecord(keras.callbacks.Callback):
    """Adds parameters and step time to the logs, and writes them to the trial's folder.

    Keras Tuner keeps the mean over the executions of a trial; here is each of them,
    epoch by epoch.

    Args:
        folder: Folder of the trial, or `None` to write nothing.
        about: Dict of what is known before training, such as the architecture.
    """

    def __init__(self, folder: Path | None, about: dict[str, Any]) -> None:
        super().__init__()
        self.folder = folder
        self.about = about
        self.execution: dict[str, Any] = {}
        self._began = 0.0
        self._trained = None
        self._steps = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins a record."""
        self.execution = {
            "parameters": self.model.count_params(),
            "began": time.time(),
            "seconds": 0.0,
            "step_seconds": None,
            "epochs": {},
            "stopped": None,
        }

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins to count time and steps."""
        self._began = time.perf_counter()
        self._trained = None
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None):
        """Counts steps."""
        self._steps = batch + 1

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stops the time: what follows is validation."""
        if self._trained is None:
            self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds to the logs, and writes them."""
        now = time.perf_counter()
        seconds = (self._trained or now) - self._began
        per_step = seconds / max(self._steps, 1)
        known = self.execution["step_seconds"]
        # The first epoch has the compilation in it; the least is what a step takes.
        self.execution["step_seconds"] = (
            per_step if known is None else min(known, per_step)
        )
        self.execution["seconds"] += now - self._began
        logs = {} if logs is None else logs
        logs["parameters"] = self.execution["parameters"]
        logs["step_seconds"] = self.execution["step_seconds"]
        self.execution["epochs"][str(epoch)] = {
            name: float(value) for name, value in logs.items() if np.isscalar(value)
        }
        self.write()

    def write(self) -> None:
        """Writes the executions so far, this one the last of them."""
        if self.folder is None:
            return
        record = read_record(self.folder) or {**self.about, "executions": []}
        before = [
            execution
            for execution in record["executions"]
            if execution["began"] != self.execution["began"]
        ]
        record["executions"] = [*before, self.execution]
        record.pop("failed", None)  # of an earlier try
        write_record(self.folder, record)


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """Returns what is written of a trial, or `None` where nothing is.

    Args:
        folder: Folder of the trial.
    """
    try:
        return json.loads((Path(folder) / FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def write_record(folder: str | Path, record: dict[str, Any]) -> None:
    """Writes what is known of a trial, whole or not at all.

    Args:
        folder: Folder of the trial.
        record: Dict for JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{FILE}.part"
    written.write_text(json.dumps(record))
    written.replace(folder / FILE)
