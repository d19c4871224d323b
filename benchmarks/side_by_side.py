"""What benchmarks share: rows in turns, a process for each backend, tables.

A script starts itself as a worker, with a job in JSON; the worker prints `RESULT` and
its figures. In it all rows take turns, so that what else the machine does falls on all
alike.
"""

import json
import os
import statistics
import subprocess
import sys


def settings(backends, jit):
    """Returns the backends, each with whether XLA compiles the step.

    TensorFlow is the backend on which that is a choice to weigh.
    """
    choice = {"both": [False, True], "on": [True], "off": [False]}[jit]
    return [
        (backend, compiled)
        for backend in backends
        for compiled in (choice if backend == "tensorflow" else [backend == "jax"])
    ]


def title_of(setting, workload):
    backend, jit = setting
    return f"{backend}, jit_compile={jit}, {workload}"


def run_backend(script, setting, job, json_file=None, environment=None):
    """Runs a job in a worker of the script on a backend."""
    backend, jit = setting
    environment = {
        **os.environ,
        **(environment or {}),
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, script, "--worker", json.dumps({**job, "jit": jit})]
    job = {"backend": backend, "jit": jit, **job}
    return run_worker(command, environment, job, json_file)


def run_worker(command, environment, job, json_file=None):
    """Runs a worker and returns its result.

    It also goes to the file; one that the file has of the same job is not measured
    again.
    """
    for known in _read(json_file):
        result = known.pop("result")
        if known == job:
            return result
    print(", ".join(f"{k}={v}" for k, v in job.items()), file=sys.stderr, flush=True)
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    for line in process.stdout.splitlines():
        if line.startswith("RESULT "):
            result = json.loads(line.removeprefix("RESULT "))
            if json_file:
                with open(json_file, "a") as file:
                    file.write(json.dumps({**job, "result": result}) + "\n")
            return result
    raise SystemExit(f"{job} failed:\n{process.stderr[-3000:]}")


def _read(json_file):
    if json_file is None or not os.path.exists(json_file):
        return []
    with open(json_file) as file:
        return [json.loads(line) for line in file]


def print_result(result):
    """Prints what a worker found, for the script that has started it."""
    print("RESULT " + json.dumps(result))


def in_turns(rows, rounds):
    """Returns the times of each row in ms, without those of a first round.

    Args:
        rows: By name, a function that takes a row's turn and returns seconds a step.
        rounds: Number of rounds that count.
    """
    times = {name: [] for name in rows}
    for round_index in range(rounds + 1):
        for name, turn in rows.items():
            seconds = turn()
            if round_index:
                times[name].append(seconds * 1000)
    return times


def medians(times, baseline):
    """Returns for each row the medians of ms and of the ratio to a row's same round."""
    plain = times[baseline]
    return {
        name: (
            statistics.median(values),
            statistics.median(a / b for a, b in zip(values, plain, strict=True)),
        )
        for name, values in times.items()
    }


def print_table(title, cells, width=22):
    """Prints cells `{row: {column: text}}` under a title."""
    columns = list(dict.fromkeys(c for row in cells.values() for c in row))
    print(f"\n{title}")
    names = [c if isinstance(c, str) else f"T = {c}" for c in columns]
    print(f"{'':<34}" + "".join(f"{name:>{width}}" for name in names))
    for name, row in cells.items():
        texts = "".join(f"{row.get(c, '-  '):>{width}}" for c in columns)
        print(f"{name:<34}{texts}")
    sys.stdout.flush()


def cell(ms, ratio, bound=None):
    """Returns the text of a time; a ratio over its bound has an exclamation mark."""
    return f"{ms:.2f} ({ratio:.2f}){mark(bound is not None and ratio > bound)}"


def mark(wrong):
    return "!" if wrong else " "
