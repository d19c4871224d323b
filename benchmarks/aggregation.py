"""Times a step of `MultiTaskModel` with gradient aggregation, side by side in one run.

    python benchmarks/aggregation.py
    python benchmarks/aggregation.py --backend jax --tasks 32 --aggregator all
    python benchmarks/aggregation.py --memory --peers peers/bin/python

The workloads, of `workloads.py`, and how a step is timed are those of `weighting.py`:
each backend runs in a process of its own, all rows in turns, and printed are medians
over rounds of ms and of the ratio to the step of plain `keras.Model`, the summed loss,
of the same round.
All backends, and the peers, take their turn at one number of tasks before the next.

Rows: every aggregator at the parameters and at the representation, and `upgrad` with
what makes it cheaper: the weights every 10 steps, the Gramian of a tenth of the batch,
both, 8 tasks at once, all heads in one `MultiHead`. An exclamation mark stands beside a
ratio over its bound. The bounds are for the better of TensorFlow and JAX; PyTorch has
twice as much.

The solver is also timed by itself: `task_weights` of a random Gramian, compiled by the
backend, with its share of the step at the parameters. What it costs to call a compiled
function, which is no part of a step, is counted: `mean` shows how much that is.

`--memory` measures the peak of the resident memory in a fresh process for each row
(Linux only), above what the process held when Keras, the backend and the data were
there: once over building, compiling and training, and once over the steps alone, after
what compiling has freed is given back. Methods that need the Gramian alone hold the
same gradients, so `upgrad` stands for all of them.

`--peers` names the Python of another environment that has PyTorch, LibMTL and TorchJD:

    python -m venv peers
    peers/bin/pip install torch "torchjd[full]"
    peers/bin/pip install --no-deps LibMTL

A CPU build of PyTorch is enough, and of LibMTL's requirements nothing else is used.
LibMTL's release on PyPI (1.1.5, of 2022) has no Nash-MTL, its CAGrad takes three tasks
only, its MGDA may take thousands of iterations, and with `rep_grad` it passes through
the trunk once a task. For all rows as they are meant, install it from its repository on
GitHub, median-research-group/LibMTL. Rows that a version can't run are named.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import time
from typing import Any

import side_by_side

PARAMETERS, REPRESENTATION = "parameters", "representation"
REPRESENTATIVE = (
    "mean",
    "mgda",
    "pcgrad",
    "cagrad",
    "nash_mtl",
    "upgrad",
    "aligned_mtl",
    "imtl_g",
)
VARIANTS = ("every_k_steps", "gramian_fraction", "both", "chunk_size", "multi_head")

BOUNDS_AT_PARAMETERS = {2: 1.4, 8: 2.4, 32: 4.5}
"""By T, for the MLP; see `bound_at` for the convolutions."""

BOUNDS_AT_REPRESENTATION = {2: 1.1, 8: 1.15, 32: 1.3}
BOUNDS_OF_CHEAP_STEPS = {32: 1.5}
"""For the MLP, with weights of some steps or a Gramian of some rows."""

SOLVER_SHARES = {32: 0.10}
PEER_GOALS = {
    "TorchJD": {2: 1.5, 8: 1.5, 32: 1.5},
    "LibMTL": {2: 1.5, 8: 2.5, 32: 6.0},
}
"""By T, how many times faster than the best row of a peer, for the MLP."""


@dataclasses.dataclass
class Row:
    """A model of the table: plain Keras if it has no aggregator."""

    name: str
    at: str = PARAMETERS
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    multi_head: bool = False
    bound: float | None = None
    in_memory_table: bool = True


def main():
    arguments = parse_arguments()
    if arguments.worker:
        job = json.loads(arguments.worker)
        task = measure_memory if "row" in job else measure_time
        side_by_side.print_result(task(job))
        return
    for workload in arguments.workload:
        settings = side_by_side.settings(arguments.backend, arguments.jit)
        runs = {setting: {} for setting in settings}
        memory = {setting: {} for setting in runs}
        peers = {}
        for tasks in arguments.tasks:
            job = {
                "workload": workload,
                "tasks": tasks,
                "aggregators": arguments.aggregator,
                "at": arguments.at,
                "variants": arguments.variant,
                "rounds": arguments.rounds or 9 + 44 // tasks,
                "steps": arguments.steps,
            }
            for setting, results in runs.items():
                results[tasks] = side_by_side.run_backend(
                    __file__, setting, job, arguments.json
                )
            if arguments.peers:
                # Their steps are long: a round of few is measured well enough.
                steps = min(arguments.steps, 2 + 36 // tasks)
                peer_job = {**job, "steps": steps}
                peers[tasks] = run_peers(arguments.peers, peer_job, arguments.json)
            if arguments.memory:
                for setting, results in runs.items():
                    names = [r["name"] for r in results[tasks]["rows"] if r["memory"]]
                    memory[setting][tasks] = {
                        name: side_by_side.run_backend(
                            __file__, setting, {**job, "row": name}, arguments.json
                        )
                        for name in names
                    }
        for setting in runs:
            print_steps(setting, workload, runs[setting])
            print_solvers(setting, workload, runs[setting])
            if arguments.memory:
                print_memory(setting, workload, memory[setting])
        if arguments.peers:
            print_peers(workload, runs, peers)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--workload", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument(
        "--aggregator",
        nargs="+",
        default=list(REPRESENTATIVE),
        help=f"names, or all; default: {' '.join(REPRESENTATIVE)}",
    )
    parser.add_argument(
        "--at",
        nargs="+",
        choices=[PARAMETERS, REPRESENTATION],
        default=[PARAMETERS, REPRESENTATION],
    )
    parser.add_argument(
        "--variant",
        nargs="*",
        choices=VARIANTS,
        default=list(VARIANTS),
        help="variants of upgrad; default: all",
    )
    parser.add_argument(
        "--rounds", type=int, help="default: 31, 14, 10 for T = 2, 8, 32"
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="steps of a round, a multiple of 10"
    )
    parser.add_argument("--jit", choices=["both", "on", "off"], default="both")
    parser.add_argument("--memory", action="store_true", help="peak memory, too")
    parser.add_argument("--peers", help="Python of an environment with the peers")
    parser.add_argument(
        "--json",
        help="file to append the figures to; those that it has are not measured again",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_peers(python, job, json_file):
    script = pathlib.Path(__file__).with_name("aggregation_peers.py")
    command = [python, str(script), json.dumps(job)]
    job = {"backend": "peers", **job}
    return side_by_side.run_worker(command, dict(os.environ), job, json_file)


# Tables


def print_steps(setting, workload, results):
    cells = {}
    for tasks, result in results.items():
        for row in result["rows"]:
            text = side_by_side.cell(row["ms"], row["ratio"], row["bound"])
            cells.setdefault(row["name"], {})[tasks] = text
    title = side_by_side.title_of(setting, workload)
    side_by_side.print_table(f"{title}: ms a step (ratio to plain Keras)", cells)


def print_solvers(setting, workload, results):
    cells = {}
    for tasks, result in results.items():
        steps = {row["name"]: row["ms"] for row in result["rows"]}
        for name, ms in result["solvers"].items():
            share = ms / steps[name]
            over = share > SOLVER_SHARES.get(tasks, float("inf"))
            text = f"{ms:.3f} ({100 * share:.1f} %){side_by_side.mark(over)}"
            cells.setdefault(name, {})[tasks] = text
    if cells:
        title = side_by_side.title_of(setting, workload)
        side_by_side.print_table(
            f"{title}: ms of the solver alone (share of the step)", cells
        )


def print_memory(setting, workload, results):
    title = side_by_side.title_of(setting, workload)
    for key, of_what in (
        ("all", "building, compiling and training"),
        ("steps", "the steps alone"),
    ):
        cells = {}
        for tasks, by_name in results.items():
            plain = by_name["plain Keras"][key]
            for name, result in by_name.items():
                text = f"{result[key]:.0f} ({result[key] - plain:+.0f}) "
                cells.setdefault(name, {})[tasks] = text
        side_by_side.print_table(
            f"{title}: peak memory of {of_what}, MiB (above plain Keras)", cells
        )


def print_peers(workload, runs, peers):
    cells = {}
    for tasks, result in peers.items():
        for row in result["rows"]:
            text = f"{row['ms']:.2f} ({row['ratio']:.2f}) "
            cells.setdefault(row["name"], {})[tasks] = text
    last = list(peers.values())[-1]
    versions = ", ".join(f"{name} {v}" for name, v in last["versions"].items())
    side_by_side.print_table(
        f"{workload}, peers on {last['threads']} threads ({versions}): "
        "ms a step (ratio to PyTorch's summed loss)",
        cells,
    )
    for tasks, result in peers.items():
        for name, why in result["missing"].items():
            print(f"T = {tasks}, no {name}: {why}")
    cells = {}
    for tasks, result in peers.items():
        for row in fastest_rows(runs, tasks):
            cells.setdefault(row["name"], {})[tasks] = compared(
                row, result["rows"], tasks, workload
            )
    side_by_side.print_table(
        f"{workload}, the better of TensorFlow and JAX: ms a step "
        "(times as fast as the best row of TorchJD, of LibMTL at the same place)",
        cells,
        width=32,
    )


def fastest_rows(runs, tasks):
    """Returns each row as the fastest backend has it, PyTorch only if alone."""
    candidates = [s for s in runs if s[0] != "torch"] or list(runs)
    rows = {}
    for setting in candidates:
        for row in runs[setting][tasks]["rows"]:
            best = rows.get(row["name"])
            if best is None or row["ms"] < best["ms"]:
                rows[row["name"]] = {**row, "setting": setting}
    return rows.values()


def compared(row, peer_rows, tasks, workload):
    backend, jit = row["setting"]
    text = f"{row['ms']:.2f} {backend}{' XLA' if jit and backend != 'jax' else ''}"
    if row["name"] == "plain Keras":
        return text + " "
    ratios = []
    for library, goals in PEER_GOALS.items():
        times = [
            peer["ms"]
            for peer in peer_rows
            if peer["library"] == library and peer["at"] == row["at"]
        ]
        if not times:
            ratios.append("-")
            continue
        ratio = min(times) / row["ms"]
        has_goal = workload == "mlp" and row["at"] == PARAMETERS and row["bound"]
        under = has_goal and ratio < goals.get(tasks, 0)
        ratios.append(f"{ratio:.1f}{side_by_side.mark(under).strip()}")
    return f"{text} ({', '.join(ratios)}) "


# What a worker does. Keras is imported here alone: its backend is that of a process.


def rows_of(job):
    from keras_mtl import aggregation

    names = job["aggregators"]
    if names == ["all"]:
        names = aggregation.names()
    rows = [Row("plain Keras")]
    for place in job["at"]:
        for name in names:
            aggregator = aggregation.get(name)
            if place == REPRESENTATION and aggregator.keeps_gradients:
                continue
            rows.append(
                Row(
                    name if place == PARAMETERS else f"{name}, {place}",
                    place,
                    {"aggregator": aggregator, "aggregate_at": place},
                    bound=bound_at(place, job) if aggregator.is_gramian else None,
                    in_memory_table=name == "upgrad" or not aggregator.is_gramian,
                )
            )
    cheap = bound_of_cheap_steps(job)
    variants = {
        "every_k_steps": Row(
            "upgrad, every 10 steps",
            arguments={"aggregator": aggregation.EveryKSteps("upgrad", k=10)},
            bound=cheap,
        ),
        "gramian_fraction": Row(
            "upgrad, gramian_fraction=0.1",
            arguments={"aggregator": "upgrad", "gramian_fraction": 0.1},
            bound=cheap,
        ),
        "both": Row(
            "upgrad, both",
            arguments={
                "aggregator": aggregation.EveryKSteps("upgrad", k=10),
                "gramian_fraction": 0.1,
            },
            bound=cheap,
        ),
        "chunk_size": Row(
            "upgrad, chunk_size=8",
            arguments={"aggregator": "upgrad", "chunk_size": 8},
        ),
        "multi_head": Row(
            "upgrad, MultiHead", arguments={"aggregator": "upgrad"}, multi_head=True
        ),
    }
    return rows + [variants[name] for name in job["variants"]]


def bound_at(place, job):
    tasks = job["tasks"]
    if place == REPRESENTATION:
        bound = BOUNDS_AT_REPRESENTATION.get(tasks)
    elif job["workload"] == "mlp":
        bound = BOUNDS_AT_PARAMETERS.get(tasks)
    else:
        # A forward pass and two of the backward kind are a plain step.
        bound = 1.25 * (1 + 2 * tasks) / 3
    return for_backend(bound)


def bound_of_cheap_steps(job):
    if job["workload"] != "mlp":
        return None
    return for_backend(BOUNDS_OF_CHEAP_STEPS.get(job["tasks"]))


def for_backend(bound):
    import keras

    if bound is not None and keras.backend.backend() == "torch":
        return 2 * bound
    return bound


def measure_time(job):
    """Returns the medians of every row and of every solver."""
    # It imports Keras, whose backend is that of a worker.
    import workloads

    rows = {row.name: row for row in rows_of(job)}
    x, y = workloads.make_data(job)
    batch_size, _ = workloads.BATCHES[job["workload"]]
    turns = {
        name: functools.partial(
            workloads.seconds_a_step, make_model(job, row), x, y, batch_size
        )
        for name, row in rows.items()
    }
    times = side_by_side.in_turns(turns, job["rounds"])
    return {
        "rows": [
            {
                "name": name,
                "at": rows[name].at,
                "ms": ms,
                "ratio": ratio,
                "bound": rows[name].bound,
                "memory": rows[name].in_memory_table,
            }
            for name, (ms, ratio) in side_by_side.medians(times, "plain Keras").items()
        ],
        "solvers": time_solvers(job),
    }


def make_model(job, row):
    import workloads

    return workloads.make_model(job, row.multi_head, **row.arguments)


def time_solvers(job):
    """Returns ms of `task_weights` for the Gramian methods at the parameters."""
    import keras
    import numpy as np

    from keras_mtl import aggregation

    # Random gradients: half of the pairs conflict.
    gradients = np.random.default_rng(0).normal(size=(job["tasks"], 4 * job["tasks"]))
    gramian = keras.ops.convert_to_tensor(gradients @ gradients.T, "float32")
    solvers = {}
    for row in rows_of({**job, "variants": []}):
        if row.arguments and row.at == PARAMETERS:
            aggregator = aggregation.get(row.arguments["aggregator"])
            if aggregator.is_gramian:
                solvers[row.name] = compiled_solver(aggregator, job)
    calls = 20

    def seconds_a_call(solve):
        start = time.perf_counter()
        for _ in range(calls):
            weights = solve(gramian)
        keras.ops.convert_to_numpy(weights)
        return (time.perf_counter() - start) / calls

    turns = {n: functools.partial(seconds_a_call, s) for n, s in solvers.items()}
    times = side_by_side.in_turns(turns, job["rounds"])
    return {name: statistics.median(values) for name, values in times.items()}


def compiled_solver(aggregator, job):
    """Returns a function from a Gramian to weights, compiled by the backend."""
    import keras

    aggregator.build_parts(job["tasks"])
    losses = keras.ops.ones((job["tasks"],))
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(
            lambda gramian: aggregator.task_weights(gramian, losses),
            jit_compile=job["jit"],
        )
    if backend == "jax":
        import jax

        variables = aggregator.variables
        state = [variable.value for variable in variables]

        @jax.jit
        def stateless(state, gramian):
            with keras.StatelessScope(zip(variables, state, strict=True)) as scope:
                weights = aggregator.task_weights(gramian, losses)
            return weights, [scope.get_current_value(v) for v in variables]

        def solve(gramian):
            nonlocal state
            weights, state = stateless(state, gramian)
            return weights

        return solve
    return lambda gramian: aggregator.task_weights(gramian, losses)


def measure_memory(job):
    """Returns MiB at the peak above those before the model was made."""
    import workloads

    (row,) = [row for row in rows_of(job) if row.name == job["row"]]
    x, y = workloads.make_data(job)
    batch_size, _ = workloads.BATCHES[job["workload"]]
    load_what_every_fit_needs(job)
    before = memory_now("VmRSS")
    forget_peak()
    model = make_model(job, row)
    workloads.seconds_a_step(model, x, y, batch_size)
    peak = memory_now("VmHWM")
    give_back_what_is_free()
    forget_peak()
    workloads.seconds_a_step(model, x, y, batch_size)
    return {"all": peak - before, "steps": memory_now("VmHWM") - before}


def load_what_every_fit_needs(job):
    """Trains a model of one unit: much is loaded on first use."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=job["jit"])
    model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)


def memory_now(key):
    """Returns MiB of what Linux counts for this process."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"`--memory` needs {key} in /proc/self/status.")


def forget_peak():
    # 5 sets the peak to what the process holds now; see proc(5).
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def give_back_what_is_free():
    """Has the C library return what compiling has freed, which would stay counted."""
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # not every C library has it
        trim(0)


if __name__ == "__main__":
    main()
