"""Times a step of LibMTL's and DeepCTR's MMoE, for `sharing.py`.

    peers/bin/python benchmarks/sharing_peers.py '{"rounds": 15, "steps": 30}'

`sharing.py` says how to make the environment. The case is the same: 8 experts of 128
units, 2 tasks, 64 features, batches of 512, linear heads, the mean squared error and
Adam, on the CPU. A step is `zero_grad`, the forward pass, the summed loss, the backward
pass and Adam; the data are sliced from tensors in memory. "torch, by hand" is a loop
over `nn.Linear`, "stacked" one contraction.

LibMTL's class is put together as its `Trainer` does, with equal weighting. DeepCTR's
has its inputs as 64 dense features, as its `DNN` and gates read them.
"""

import functools
import json
import sys
import time
import types

import side_by_side
import torch
from torch import nn

FEATURES, BATCH, EXPERTS, UNITS, TASKS = 64, 512, 8, 128, 2


def main():
    side_by_side.print_result(measure(json.loads(sys.argv[1])))


def measure(job):
    """Returns by row the medians of ms a step and of the ratio to the first row."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((job["steps"], BATCH, FEATURES), generator=generator)
    y = torch.randn((job["steps"], TASKS, BATCH, 1), generator=generator)
    steps = {}
    for name, make in ROWS.items():
        torch.manual_seed(0)
        try:
            step = make()
            step(x[0], y[0])
        except Exception as error:  # a peer that is not there is no row
            print(f"no {name}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            steps[name] = step

    def seconds_a_step(step):
        start = time.perf_counter()
        for inputs, labels in zip(x, y, strict=True):
            step(inputs, labels)
        return (time.perf_counter() - start) / len(x)

    turns = {
        name: functools.partial(seconds_a_step, step) for name, step in steps.items()
    }
    times = side_by_side.in_turns(turns, job["rounds"])
    return side_by_side.medians(times, next(iter(steps)))


def trained(model, predict):
    """Returns a step of a model; `predict` gives the outputs of all tasks."""
    optimizer = torch.optim.Adam(model.parameters())

    def step(inputs, labels):
        optimizer.zero_grad()
        outputs = predict(inputs)
        losses = [
            nn.functional.mse_loss(output, label)
            for output, label in zip(outputs, labels, strict=True)
        ]
        sum(losses).backward()
        optimizer.step()

    return step


class Loop(nn.Module):
    """Experts and gates in loops."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(FEATURES, UNITS) for _ in range(EXPERTS))
        self.gates = nn.ModuleList(
            nn.Linear(FEATURES, EXPERTS, bias=False) for _ in range(TASKS)
        )
        self.heads = nn.ModuleList(nn.Linear(UNITS, 1) for _ in range(TASKS))

    def forward(self, x):
        stacked = torch.stack([torch.relu(e(x)) for e in self.experts], 1)
        outputs = []
        for gate, head in zip(self.gates, self.heads, strict=True):
            weights = torch.softmax(gate(x), -1)
            outputs.append(head((weights.unsqueeze(-1) * stacked).sum(1)))
        return outputs


class Stacked(nn.Module):
    """Experts and gates in one layer each."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Linear(FEATURES, EXPERTS * UNITS)
        self.gates = nn.Linear(FEATURES, TASKS * EXPERTS, bias=False)
        self.heads = nn.ModuleList(nn.Linear(UNITS, 1) for _ in range(TASKS))

    def forward(self, x):
        stacked = torch.relu(self.experts(x)).view(-1, EXPERTS, UNITS)
        weights = torch.softmax(self.gates(x).view(-1, TASKS, EXPERTS), -1)
        mixed = torch.bmm(weights, stacked)
        return [head(mixed[:, t]) for t, head in enumerate(self.heads)]


def by_hand(module):
    model = module()
    return trained(model, model)


def libmtl():
    # LibMTL's networks, which no row uses, need a torchvision of 2021.
    sys.modules.setdefault("LibMTL.model", types.ModuleType("LibMTL.model"))
    import LibMTL.architecture
    import LibMTL.weighting

    class Model(LibMTL.architecture.MMoE, LibMTL.weighting.EW):
        def zero_grad_share_params(self):
            self.encoder.zero_grad(set_to_none=False)

    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(FEATURES, UNITS)

        def forward(self, x):
            return torch.relu(self.layer(x))

    names = [f"task_{index}" for index in range(TASKS)]
    model = Model(
        names,
        encoder_class=Expert,
        decoders=nn.ModuleDict({name: nn.Linear(UNITS, 1) for name in names}),
        rep_grad=False,
        multi_input=False,
        device=torch.device("cpu"),
        img_size=[FEATURES],
        num_experts=[EXPERTS],
    )
    model.init_param()
    optimizer = torch.optim.Adam(model.parameters())

    def step(inputs, labels):
        predictions = model(inputs)
        losses = torch.zeros(TASKS)
        for index, name in enumerate(names):
            losses[index] = nn.functional.mse_loss(predictions[name], labels[index])
        optimizer.zero_grad(set_to_none=False)
        model.backward(losses)
        optimizer.step()

    return step


def deepctr():
    # Its `fit`, which no row uses, wants callbacks of a TensorFlow of 2020.
    name = "tensorflow.python.keras.callbacks"
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        sys.modules.setdefault(prefix, types.ModuleType(prefix))
    for callback in ("CallbackList", "EarlyStopping", "History", "ModelCheckpoint"):
        setattr(sys.modules[name], callback, types.SimpleNamespace)
    from deepctr_torch.inputs import DenseFeat
    from deepctr_torch.models import MMOE

    model = MMOE(
        [DenseFeat("x", FEATURES)],
        num_experts=EXPERTS,
        expert_dnn_hidden_units=(UNITS,),
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=(),
        l2_reg_linear=0,
        l2_reg_embedding=0,
        l2_reg_dnn=0,
        task_types=["regression"] * TASKS,
        task_names=[f"task_{index}" for index in range(TASKS)],
        device="cpu",
    )
    return trained(model, lambda x: model(x).split(1, dim=1))


ROWS = {
    "torch, loop by hand": functools.partial(by_hand, Loop),
    "torch, stacked by hand": functools.partial(by_hand, Stacked),
    "LibMTL": libmtl,
    "DeepCTR (torch)": deepctr,
}


if __name__ == "__main__":
    main()
