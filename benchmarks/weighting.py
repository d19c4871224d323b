"""Times a step of `MultiTaskModel` against plain Keras, side by side in one run.

    python benchmarks/weighting.py --backend tensorflow jax torch

Each backend runs in a process of its own. In it, every model of a row is made,
trained for a few steps to compile, and then timed in turns, so that what else the
machine does falls on all alike. A step is one step of `fit` on data in memory;
printed are medians over rounds: ms, and the ratio to plain Keras's step of the
same round.

Rows: plain `keras.Model` with a dict of losses, and `MultiTaskModel` with every
weighting, with separate heads and with all heads in one `MultiHead`. Workloads are
those of `workloads.py`.
"""

import argparse
import functools
import json

import side_by_side

EXPENSIVE = {"famo": lambda tasks: 1.5, "grad_norm": lambda tasks: 1.3 + 0.05 * tasks}
"""Bounds of the weightings that need more than the losses."""

BOUND = 1.05
MULTI_HEAD_BOUND = {"tensorflow": 0.65, "jax": 0.85}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--workload", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument("--weighting", nargs="+", help="default: all")
    parser.add_argument(
        "--rounds", type=int, help="default: 31, 14, 10 for T = 2, 8, 32"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--jit", choices=["both", "on", "off"], default="both")
    parser.add_argument(
        "--json",
        help="file to append the figures to; those that it has are not measured again",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side_by_side.print_result(measure(json.loads(arguments.worker)))
        return
    for setting in side_by_side.settings(arguments.backend, arguments.jit):
        for workload in arguments.workload:
            cells = {}
            for tasks in arguments.tasks:
                job = {
                    "workload": workload,
                    "tasks": tasks,
                    "weightings": arguments.weighting,
                    "rounds": arguments.rounds or 9 + 44 // tasks,
                    "steps": arguments.steps,
                }
                rows = side_by_side.run_backend(__file__, setting, job, arguments.json)
                for name, (ms, ratio) in rows.items():
                    limit = bound(name, tasks, *setting)
                    text = side_by_side.cell(ms, ratio, limit)
                    cells.setdefault(name, {})[tasks] = text
            title = side_by_side.title_of(setting, workload)
            side_by_side.print_table(
                f"{title}: ms a step (ratio to plain Keras)", cells
            )


def bound(name, tasks, backend, jit):
    if name == "plain Keras":
        return None
    if name == "equal, MultiHead":
        if tasks != 32 or (backend == "tensorflow" and jit):
            return None
        return MULTI_HEAD_BOUND.get(backend)
    return EXPENSIVE.get(name, lambda _: BOUND)(tasks)


def measure(job):
    """Returns by row the medians of ms a step and of the ratio to plain Keras."""
    # Keras is imported by a worker alone: its backend is that of a process.
    import workloads

    from keras_mtl import weighting

    models = {"plain Keras": workloads.make_model(job)}
    for name in job["weightings"] or weighting.names():
        if name not in ("static", "schedule"):
            models[name] = workloads.make_model(job, weighting=name)
    first = workloads.task_names(job)[0]
    models["static"] = workloads.make_model(job, loss_weights={first: 2.0})
    models["equal, MultiHead"] = workloads.make_model(job, multi_head=True)
    x, y = workloads.make_data(job)
    batch_size, _ = workloads.BATCHES[job["workload"]]
    rows = {
        name: functools.partial(workloads.seconds_a_step, model, x, y, batch_size)
        for name, model in models.items()
    }
    times = side_by_side.in_turns(rows, job["rounds"])
    return side_by_side.medians(times, "plain Keras")


if __name__ == "__main__":
    main()
