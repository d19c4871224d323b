"""A search by several processes, which ends also where some of them do not."""

import contextlib
import copy
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.tuning.trial_record import read_record, write_record

CHIEF = "chief"
_LAST_STEPS = 60.0
"""Seconds that workers have to end after the chief."""


def search(
    tuner: Any,
    *args: Any,
    give_up_after: float = 600.0,
    every: float = 5.0,
    **kwargs: Any,
) -> None:
    """Runs `tuner.search`, and gives up on workers that stay away.

    Alone, it is `tuner.search`. In a search by several processes (the environment
    variables of Keras Tuner) a worker says every few seconds that it is there, by a
    file in the project's folder; the chief ends the trial of one that has not for
    `give_up_after` seconds as failed, with a message, and no longer waits for it.
    By itself Keras Tuner's chief would wait for ever. A worker that is started again
    within that time, under the same id, is handed the same trial.

    Failed trials do not end a search by several processes, however many there are in a
    row.

    Args:
        tuner: A tuner.
        *args: Arguments of `tuner.search`.
        give_up_after: Seconds. Defaults to 600.
        every: Seconds between two signs of life. Defaults to 5.
        **kwargs: Arguments of `tuner.search`.

    Example:

    ```python
    import keras_tuner

    space = keras_mtl.tuning.SharingHyperModel(
        keras.Input((4,)),
        [lambda: keras.layers.Dense(8, "relu")],
        {"a": lambda: keras.layers.Dense(1), "b": lambda: keras.layers.Dense(1)},
        loss={"a": "mse", "b": "mse"},
    )
    tuner = keras_tuner.RandomSearch(space, "val_loss", max_trials=1, directory="s")
    x = np.random.default_rng(0).normal(size=(64, 4))
    y = {"a": x[:, :1], "b": x[:, 1:2]}
    keras_mtl.tuning.search(tuner, x, y, validation_data=(x, y), verbose=0)
    ```
    """
    check_number("give_up_after", give_up_after, above=0)
    check_number("every", every, above=0)
    folder = Path(tuner.project_dir)
    role = os.environ.get("KERASTUNER_TUNER_ID", "")
    done = threading.Event()
    alone = "KERASTUNER_ORACLE_IP" not in os.environ
    if alone or CHIEF in role:
        _repeat_nothing(tuner.oracle)
    if alone:
        tuner.search(*args, **kwargs)
        return
    if CHIEF in role:
        # It does not see what `SharingHyperModel.fit` sees, which decides when alone.
        tuner.oracle.max_consecutive_failed_trials = math.inf
        watch = _Watch(tuner.oracle, folder, give_up_after)
        task = threading.Thread(target=watch.run, args=(done, every), daemon=True)
    else:
        task = threading.Thread(
            target=_say_here, args=(folder, tuner.tuner_id, done, every), daemon=True
        )
        _write_reasons(tuner)
    task.start()
    try:
        tuner.search(*args, **kwargs)
    finally:
        done.set()
        task.join()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Makes an exception of the signal to terminate, so that `finally` is reached.

    In the main thread, which is where Python takes signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def once(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # What it begins comes to an end.
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@_sigterm_raises()
def run_workers(
    command: Sequence[str],
    workers: int,
    max_restarts: int = 3,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    poll: float = 1.0,
) -> dict[str, int]:
    """Starts a chief and workers of a search on this machine, and sees to them.

    Each is the same program, which builds a tuner and calls `tuning.search`; Keras
    Tuner tells them apart by environment variables, which are set here. A worker that
    ends with an error, or is killed, is started again under the same id. Returns when
    the chief has ended.

    On several machines the same program is started by hand, or by a scheduler, with the
    same variables: see the guide.

    Args:
        command: The program, such as `[sys.executable, "search.py"]`.
        workers: Integer, number of workers.
        max_restarts: Integer, how often a worker is started again. Defaults to 3.
        port: Port of the chief on loopback. Defaults to one that is free.
        environment: Further environment variables.
        poll: Seconds between two looks. Defaults to 1.

    Returns:
        Dict by the id of a worker of how often it was started again.

    Raises:
        RuntimeError: If the chief ends with an error, or no worker is left.
    """
    check_count("workers", workers)
    shared = {
        **os.environ,
        **(environment or {}),
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port or _free_port()),
    }

    def start(role: str) -> subprocess.Popen:
        return subprocess.Popen(
            list(command), env={**shared, "KERASTUNER_TUNER_ID": role}
        )

    roles = [f"tuner{i}" for i in range(workers)]
    restarts = dict.fromkeys(roles, 0)
    processes: list[subprocess.Popen] = []
    try:
        chief = start(CHIEF)
        processes.append(chief)
        running = {}
        for role in roles:
            running[role] = start(role)
            processes.append(running[role])
        last = time.monotonic()
        while chief.poll() is None:
            for role, worker in list(running.items()):
                if worker.poll() in (None, 0):
                    continue
                if restarts[role] == max_restarts:
                    del running[role]
                    print(f"{role} has failed {max_restarts + 1} times and stays away.")
                    continue
                restarts[role] += 1
                print(f"{role} ended with {worker.poll()}, and is started again.")
                running[role] = start(role)
                processes.append(running[role])
            # One that ended with 0 was told that there are no trials left: the chief
            # waits for those that stay away.
            if {worker.poll() for worker in running.values()} & {None, 0}:
                last = time.monotonic()
            elif time.monotonic() - last > _LAST_STEPS:
                raise RuntimeError(
                    "No worker is left, and the search is not at its end. Received: "
                    f"restarts {restarts}, of max_restarts={max_restarts}"
                )
            time.sleep(poll)
        if chief.returncode == 0:
            _wait_for(running.values(), _LAST_STEPS)
    finally:
        _end(processes)
    if chief.returncode:
        raise RuntimeError(f"The chief has ended with {chief.returncode}.")
    return restarts


def _wait_for(processes: Iterable[subprocess.Popen], seconds: float) -> None:
    """Waits until processes have ended, so many seconds in all."""
    until = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Ends processes, which have some seconds to end by themselves."""
    left = [process for process in processes if process.poll() is None]
    for process in left:
        process.terminate()
    _wait_for(left, 10.0)
    for process in left:
        if process.poll() is None:
            process.kill()
            process.wait()


def _repeat_nothing(oracle: Any) -> None:
    """Takes finished trials from those that are run again after a restart.

    Keras Tuner saves its state before it strikes a finished trial from those under way;
    in a chief nothing saves it again, so that the last ones were repeated.
    """
    oracle._retry_queue = [
        trial_id
        for trial_id in oracle._retry_queue
        if oracle.trials[trial_id].status not in ("COMPLETED", "FAILED")
    ]


def _write_reasons(tuner: Any) -> None:
    """Lets a worker write why a trial has failed to the record of the trial.

    Keras Tuner's workers do not tell the chief.
    """
    end_trial = tuner.on_trial_end

    def on_trial_end(trial: Any) -> None:
        folder = Path(tuner.get_trial_dir(trial.trial_id))
        record = read_record(folder) or {"executions": []}
        said = (trial.message or "").strip().splitlines()
        if said and not {"failed", "rejected"} & set(record):
            write_record(folder, {**record, "failed": said[-1]})
        end_trial(trial)

    tuner.on_trial_end = on_trial_end


class _Watch:
    """Gives up on workers that have not said for a while that they are there."""

    def __init__(self, oracle: Any, folder: Path, give_up_after: float) -> None:
        self._oracle = oracle
        self._folder = folder
        self._give_up_after = give_up_after
        self._seen: dict[str, tuple[float, float]] = {}

    def run(self, done: threading.Event, every: float) -> None:
        while not done.wait(every):
            for role in list(self._oracle.tuner_ids):
                try:
                    if self._away(role) > self._give_up_after:
                        self._give_up(role)
                except OSError as error:  # Of storage: once more, later.
                    print(f"{role} could not be given up: {error}")

    def _away(self, role: str) -> float:
        """Returns for how many seconds a worker has not said that it is there.

        By this clock, since the time of its file last changed: clocks of machines
        differ.
        """
        now = time.monotonic()
        sign, since = self._seen.get(role, (0.0, now))
        try:
            found = _sign(self._folder, role).stat().st_mtime
        except FileNotFoundError:
            found = sign
        except OSError:  # Storage that is not to be reached: no fault of the worker.
            found, since = sign, now
        self._seen[role] = (found, now if found != sign else since)
        return now - self._seen[role][1]

    def _give_up(self, role: str) -> None:
        trial = self._oracle.ongoing_trials.get(role)
        if trial is not None:
            trial = copy.copy(trial)  # That of the oracle is its own, under its lock.
            trial.status = "FAILED"
            trial.message = (
                f"Given up: its worker {role} has not been there for "
                f"{self._give_up_after:g} seconds."
            )
            print(f"Trial {trial.trial_id}: {trial.message}")
            self._oracle.end_trial(trial)
        self._oracle.tuner_ids.discard(role)
        self._seen.pop(role, None)


def _say_here(folder: Path, role: str, done: threading.Event, every: float) -> None:
    while True:
        try:
            _sign(folder, role).touch()
        except OSError:
            pass  # Storage that is not to be reached for now.
        if done.wait(every):
            return


def _sign(folder: Path, role: str) -> Path:
    return folder / f"{role}.here"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
