"""Times what callbacks that measure gradients cost, side by side in one run.

    python benchmarks/analysis.py --backend tensorflow jax torch

Rows: `fit` of a `MultiTaskModel` without a callback, and with `GradientConflict` and
`TaskAffinity`, each with `every=10` and the part of the batch that is their default.
Each backend runs in a process of its own; in it the rows take turns. Printed are
medians over rounds: ms a step, and the ratio to the row without in the same round; the
first eleven steps of a round, which compile, do not count. Of the eight measurements in
the other eighty one looks ahead with 8 tasks, and four with 2, as in a long training.
A ratio above 1.15 has an exclamation mark. Workloads are those of `workloads.py`.
"""

import argparse
import functools
import json

import side_by_side

BOUND = 1.15
PLAIN = "without"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--workload", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=91, help="steps of a round")
    parser.add_argument("--jit", choices=["both", "on", "off"], default="off")
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
                    "every": arguments.every,
                    "rounds": arguments.rounds,
                    "steps": arguments.steps,
                }
                rows = side_by_side.run_backend(__file__, setting, job, arguments.json)
                for name, (ms, ratio) in rows.items():
                    bound = None if name == PLAIN else BOUND
                    text = side_by_side.cell(ms, ratio, bound)
                    cells.setdefault(name, {})[tasks] = text
            title = side_by_side.title_of(setting, workload)
            side_by_side.print_table(f"{title}: ms a step (ratio to {PLAIN})", cells)


def measure(job):
    """Returns by row the medians of ms a step and of the ratio to the first row."""
    # Keras is imported by a worker alone: its backend is that of a process.
    import workloads

    from keras_mtl.analysis import GradientConflict, TaskAffinity

    callbacks = {
        PLAIN: None,
        "GradientConflict": GradientConflict,
        "TaskAffinity": TaskAffinity,
        "TaskAffinity, first order": functools.partial(TaskAffinity, look_ahead=False),
    }
    x, y = workloads.make_data(job)
    batch_size, _ = workloads.BATCHES[job["workload"]]
    rows = {}
    for name, make in callbacks.items():
        model = workloads.make_model(job, weighting="equal")
        used = [] if make is None else [make(every=job["every"])]
        rows[name] = functools.partial(
            workloads.seconds_a_step, model, x, y, batch_size, used, job["every"] + 1
        )
    times = side_by_side.in_turns(rows, job["rounds"])
    return side_by_side.medians(times, PLAIN)


if __name__ == "__main__":
    main()
