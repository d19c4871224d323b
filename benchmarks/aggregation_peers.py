"""Times a step of LibMTL's and TorchJD's gradient aggregation, for `aggregation.py`.

    peers/bin/python benchmarks/aggregation_peers.py \\
        '{"workload": "mlp", "tasks": 8, "rounds": 14, "steps": 20}'

`aggregation.py` says how to make the environment. The workloads are the same, as
plain PyTorch modules on the CPU, with Adam, the data sliced from tensors in memory.
All rows are timed in turns; printed, as JSON, are medians over rounds: ms a step,
and the ratio to the step of PyTorch's summed loss of the same round.

A step is `zero_grad`, the forward pass, the losses, the backward passes with the
aggregation, and Adam. LibMTL's classes are put together as its `Trainer` does. The
losses are written into one tensor as there, for which each task's backward pass runs
through all heads; what the `Trainer` does beside (metrics, a copy of each loss) is
left out. TorchJD's step is that of its documentation: `mtl_backward` and
`jac_to_grad`, and its `autogram` engine. "Sequential" is `parallel_chunk_size=1`,
which is faster on a CPU for some sizes.
"""

import functools
import importlib.metadata
import json
import sys
import time
import types

import side_by_side
import torch
import torchjd.aggregation
from torch import nn
from torchjd.autogram import Engine
from torchjd.autojac import jac_to_grad, mtl_backward

LIBMTL_ARGUMENTS = {
    "PCGrad": {},
    "MGDA": {"mgda_gn": "none"},
    "CAGrad": {"calpha": 0.5, "rescale": 1},
    "Nash_MTL": {"update_weights_every": 1, "optim_niter": 20, "max_norm": 1.0},
}
"""LibMTL's defaults; its classes have none of their own."""


def main():
    side_by_side.print_result(measure(json.loads(sys.argv[1])))


def measure(job):
    """Returns the rows that run, those that do not and why, and the versions."""
    x, y = make_data(job)
    steps, missing = {}, {}
    for row, make in make_rows(job["tasks"]):
        torch.manual_seed(0)
        try:
            step = make(make_trunk(job["workload"]), make_heads(job))
            step(x[0], y[0])
        except Exception as error:  # what a release of a peer can't do is no row
            missing[row] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            steps[row] = step

    def seconds_a_step(step):
        start = time.perf_counter()
        for inputs, labels in zip(x, y, strict=True):
            step(inputs, labels)
        return (time.perf_counter() - start) / len(x)

    turns = {
        row: functools.partial(seconds_a_step, step) for row, step in steps.items()
    }
    times = side_by_side.in_turns(turns, job["rounds"])
    medians = side_by_side.medians(times, ("torch", "summed loss", "parameters"))
    return {
        "rows": [
            {
                "library": library,
                "name": f"{library} {method}",
                "at": place,
                "ms": ms,
                "ratio": ratio,
            }
            for (library, method, place), (ms, ratio) in medians.items()
        ],
        "missing": {
            f"{library} {method}": why
            for (library, method, place), why in missing.items()
        },
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("torch", "LibMTL", "torchjd")
        },
        "threads": torch.get_num_threads(),
    }


def make_data(job):
    """Returns inputs `(steps, batch, ...)` and labels `(steps, T, batch, 1)`."""
    generator = torch.Generator().manual_seed(0)
    batch, shape = (256, (64,)) if job["workload"] == "mlp" else (128, (1, 28, 28))
    x = torch.randn((job["steps"], batch, *shape), generator=generator)
    y = torch.randn((job["steps"], job["tasks"], batch, 1), generator=generator)
    return x, y


def make_trunk(workload):
    layers, size = [], 64 if workload == "mlp" else 1
    for units in (256, 256, 128) if workload == "mlp" else (32, 64, 128):
        if workload == "mlp":
            layers.append(nn.Linear(size, units))
        else:
            layers.append(nn.Conv2d(size, units, 3, stride=2, padding=1))
        layers.append(nn.ReLU())
        size = units
    return nn.Sequential(*layers, nn.Flatten())


def make_heads(job):
    features = 128 if job["workload"] == "mlp" else 4 * 4 * 128
    return nn.ModuleDict(
        {
            f"task_{index}": nn.Sequential(
                nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 1)
            )
            for index in range(job["tasks"])
        }
    )


def make_rows(tasks):
    """Yields (library, method, place) and what makes the row's step."""
    yield ("torch", "summed loss", "parameters"), summed_loss
    for name in LIBMTL_ARGUMENTS:
        yield ("LibMTL", name, "parameters"), libmtl(name, rep_grad=False)
    yield ("LibMTL", "MGDA, rep_grad", "representation"), libmtl("MGDA", rep_grad=True)
    for aggregator, arguments in (
        ("UPGrad", {}),
        ("PCGrad", {}),
        ("CAGrad", {"c": 0.4}),
        ("NashMTL", {"n_tasks": tasks}),
    ):
        for name, chunk in ((aggregator, None), (f"{aggregator}, sequential", 1)):
            make = autojac(aggregator, arguments, chunk)
            yield ("TorchJD", name, "parameters"), make
    yield ("TorchJD", "UPGrad, autogram", "parameters"), autogram


def summed_loss(trunk, heads):
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()])

    def step(inputs, labels):
        optimizer.zero_grad()
        sum(task_losses(trunk(inputs), heads, labels)).backward()
        optimizer.step()

    return step


def libmtl_classes(name):
    """Returns LibMTL's hard parameter sharing and one of its weightings."""
    # LibMTL's networks, which no row uses, need a torchvision of 2021.
    sys.modules.setdefault("LibMTL.model", types.ModuleType("LibMTL.model"))
    import LibMTL.architecture
    import LibMTL.weighting

    return LibMTL.architecture.HPS, getattr(LibMTL.weighting, name)


def libmtl(name, rep_grad):
    def make(trunk, heads):
        architecture, weighting = libmtl_classes(name)

        class Model(architecture, weighting):
            def zero_grad_share_params(self):
                # The release of 2022 reads gradients where torch has None since 2.0.
                self.encoder.zero_grad(set_to_none=False)

        model = Model(
            list(heads),
            encoder_class=lambda: trunk,
            decoders=heads,
            rep_grad=rep_grad,
            multi_input=False,
            device=torch.device("cpu"),
        )
        model.init_param()
        optimizer = torch.optim.Adam(model.parameters())
        arguments = LIBMTL_ARGUMENTS[name]

        def step(inputs, labels):
            predictions = model(inputs)
            losses = torch.zeros(len(heads))
            for index, task in enumerate(heads):
                losses[index] = nn.functional.mse_loss(predictions[task], labels[index])
            optimizer.zero_grad(set_to_none=False)
            model.backward(losses, **arguments)
            optimizer.step()

        return step

    return make


def autojac(name, arguments, chunk):
    def make(trunk, heads):
        aggregator = getattr(torchjd.aggregation, name)(**arguments)
        optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()])

        def step(inputs, labels):
            features = trunk(inputs)
            losses = task_losses(features, heads, labels)
            mtl_backward(losses, features=features, parallel_chunk_size=chunk)
            jac_to_grad(trunk.parameters(), aggregator)
            optimizer.step()
            optimizer.zero_grad()

        return step

    return make


def autogram(trunk, heads):
    # The losses are means over the batch, so there is no batch axis left.
    engine = Engine(trunk, batch_dim=None)
    weighting = torchjd.aggregation.UPGradWeighting()
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()])

    def step(inputs, labels):
        losses = torch.stack(task_losses(trunk(inputs), heads, labels))
        losses.backward(weighting(engine.compute_gramian(losses)))
        optimizer.step()
        optimizer.zero_grad()

    return step


def task_losses(features, heads, labels):
    return [
        nn.functional.mse_loss(head(features), label)
        for head, label in zip(heads.values(), labels, strict=True)
    ]


if __name__ == "__main__":
    main()
