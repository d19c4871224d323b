"""A chief and two workers, of which one is killed, and one that stays away."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_mtl.tuning import distributed_search, run_workers
from keras_mtl.tuning.trial_record import read_record

PROGRAM = '''
import os, sys, time
import keras, keras_tuner
import numpy as np
from keras_mtl import tuning

folder, give_up_after = sys.argv[1], float(sys.argv[2])
role = os.environ["KERASTUNER_TUNER_ID"]

class Kill(keras.callbacks.Callback):
    """Ends the second worker in the middle of its first trial."""

    def on_epoch_end(self, epoch, logs=None):
        mark = os.path.join(folder, "killed")
        if role == "tuner1" and (give_up_after < 60 or not os.path.exists(mark)):
            open(mark, "a").close()
            os._exit(9)

space = tuning.SharingHyperModel(
    keras.Input((4,)),
    [lambda hp: keras.layers.Dense(hp.Int("units", 4, 64), "relu")],
    {task: lambda: keras.layers.Dense(1) for task in "ab"},
    {"a": "mse", "b": "mse"},
    sharing=["branch"],
)
tuner = keras_tuner.RandomSearch(
    space, tuning.weighted_loss_objective({"a": 1.0, "b": 1.0}), max_trials=4,
    directory=folder, project_name="search", seed=0,
)
x = np.random.default_rng(0).normal(size=(32, 4))
y = {"a": x[:, :1], "b": x[:, 1:2]}
tuning.search(
    tuner, x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[Kill()],
    give_up_after=give_up_after, every=1.0,
)
'''


def statuses(folder):
    trials = sorted(Path(folder, "search").glob("trial_*/trial.json"))
    return [json.loads(trial.read_text()) for trial in trials]


@pytest.mark.slow
@pytest.mark.ci
def test_a_killed_worker_is_started_again_and_its_trial_is_not_lost(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path), "600"]
    restarts = run_workers(command, workers=2)
    assert restarts == {"tuner0": 0, "tuner1": 1}
    assert [trial["status"] for trial in statuses(tmp_path)] == ["COMPLETED"] * 4
    # Once more: all trials are done, and none is repeated.
    before = {p: p.stat().st_mtime for p in tmp_path.rglob("record.json")}
    assert len(before) == 4
    run_workers(command, workers=1)
    assert {p: p.stat().st_mtime for p in tmp_path.rglob("record.json")} == before


@pytest.mark.slow
def test_a_worker_that_stays_away_is_given_up(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path), "20"]
    restarts = run_workers(command, workers=2, max_restarts=0)
    assert restarts == {"tuner0": 0, "tuner1": 0}
    found = statuses(tmp_path)
    assert sorted(t["status"] for t in found) == ["COMPLETED"] * 3 + ["FAILED"]
    message = next(t["message"] for t in found if t["status"] == "FAILED")
    assert "its worker tuner1 has not been there for 20 seconds" in message


def test_a_signal_to_end_ends_all_processes(tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, pathlib, sys, time\n"
        "mark = pathlib.Path(sys.argv[1], os.environ['KERASTUNER_TUNER_ID'])\n"
        "mark.write_text(str(os.getpid()))\n"
        "time.sleep(100)\n"
    )
    (tmp_path / "run.py").write_text(
        "import sys\n"
        "from keras_mtl.tuning import run_workers\n"
        "run_workers([sys.executable, *sys.argv[1:]], workers=2)\n"
    )
    command = [tmp_path / "run.py", tmp_path / "program.py", tmp_path]
    running = subprocess.Popen([sys.executable, *command])
    marks = [tmp_path / role for role in ("chief", "tuner0", "tuner1")]
    began = time.monotonic()
    while not all(mark.exists() and mark.read_text() for mark in marks):
        assert running.poll() is None and time.monotonic() - began < 120
        time.sleep(0.1)
    running.terminate()
    assert running.wait(30) == 128 + signal.SIGTERM
    for mark in marks:
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)


def test_a_chief_may_wait_for_a_worker_that_stays_away(tmp_path, monkeypatch):
    """Where another one was told that there is nothing left to do."""
    monkeypatch.setattr(distributed_search, "_LAST_STEPS", 1.0)
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "role = os.environ['KERASTUNER_TUNER_ID']\n"
        "if role == 'chief': time.sleep(4)\n"
        "if role == 'tuner1': raise SystemExit(3)\n"
    )
    command = [sys.executable, str(program)]
    assert run_workers(command, 2, max_restarts=0, poll=0.2) == dict.fromkeys(
        ["tuner0", "tuner1"], 0
    )
    program.write_text(program.read_text().replace("tuner1", "tuner"))
    program.write_text(
        program.read_text().replace("role == 'tuner'", "role != 'chief'")
    )
    with pytest.raises(RuntimeError, match="No worker is left"):
        run_workers(command, 2, max_restarts=0, poll=0.2)


def test_the_chief_learns_why_a_trial_of_a_worker_failed(tmp_path):
    class Tuner:
        ended = ()

        def get_trial_dir(self, trial_id):
            return tmp_path / trial_id

        def on_trial_end(self, trial):
            self.ended += (trial,)

    tuner, trial = Tuner(), SimpleNamespace(trial_id="0", message="Traceback\nE: why\n")
    distributed_search._write_reasons(tuner)
    tuner.on_trial_end(trial)
    assert tuner.ended == (trial,)
    assert read_record(tmp_path / "0")["failed"] == "E: why"


def test_a_worker_is_away_by_the_clock_of_the_chief(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(distributed_search.time, "monotonic", lambda: now[0])
    watch = distributed_search._Watch(None, tmp_path, 10.0)
    sign = tmp_path / "tuner0.here"
    sign.touch()
    os.utime(sign, (1, 1))  # The other machine's clock is far behind.
    assert watch._away("tuner0") == 0
    now[0] += 7
    assert watch._away("tuner0") == 7
    os.utime(sign, (2, 2))
    assert watch._away("tuner0") == 0
    now[0] += 7
    assert watch._away("tuner0") == 7
    assert watch._away("tuner1") == 0


def test_a_chief_that_fails_ends_the_workers(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "if os.environ['KERASTUNER_TUNER_ID'] == 'chief': raise SystemExit(3)\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="ended with 3"):
        run_workers([sys.executable, str(program)], workers=2)
    assert time.monotonic() - began < 30
    assert os.environ.get("KERASTUNER_TUNER_ID") is None
