"""Times a step of learn2learn, easyfsl and plain PyTorch, for `episodes.py`.

    peers/bin/python benchmarks/episodes_peers.py \\
        '{"peer": "easyfsl", "learner": "protonet", "pool": "max", "data": "e.npz"}'

`episodes.py` starts it and says how to make the environment. It prints that it is
ready, or why it can't be, and then for each line of the input seconds a step.

The data are those of ours: batches of episodes, in memory. A step is `zero_grad`, for
each episode the forward pass and the backward pass, and one step of Adam on the mean,
as the examples of learn2learn have it. What they do beside (accuracies, `.item()`) is
left out.

- learn2learn's prototypical network is `meta_learn` of its
  `LightningPrototypicalNetworks`: support and queries in one call of the network, and
  its `PrototypicalClassifier`. Its MAML is the loop of `maml_omniglot.py`.
- easyfsl's is the loop of its notebook on episodic training: `process_support_set`, and
  a call with the queries.
- `torch.func` is MAML by hand, with `vmap` over the tasks and `grad` within.
- `torch` is `MemoryAugmented` and `Recurrent` by hand: batches of episodes, an LSTM,
  and for the former the access to the memory at each step.
"""

import importlib.util
import json
import os
import sys
import time
import types

import numpy as np
import torch
from contestants import serve
from episodes import FEATURES, FILTERS, HIDDEN, INNER_RATE, WAYS
from side_by_side import print_result
from torch import nn
from torch.nn import functional

UNITS, SLOTS, SLOT_SIZE, READS, USAGE_DECAY = 200, 128, 40, 4, 0.95
"""The defaults of `MemoryAugmented`."""
LSTM_UNITS = 128
"""The default of `Recurrent`."""


def main():
    job = json.loads(sys.argv[1])
    torch.manual_seed(0)
    try:
        step = PEERS[job["peer"]](job)
    except (ImportError, FileNotFoundError) as error:
        print_result(f"{type(error).__name__}: {error}")
        return
    batches = read_batches(job)

    def turn():
        start = time.perf_counter()
        for batch in batches:
            step(*batch)
        return (time.perf_counter() - start) / len(batches)

    serve(turn)


def read_batches(job):
    """Returns batches of tensors: x and y of the support, x and y of the queries.

    Labels are numbers; images have an axis of channels.
    """
    arrays = np.load(job["data"])
    names = ("support_x", "support_y", "query_x", "query_y")
    x, y, query_x, query_y = (torch.from_numpy(arrays[name]) for name in names)
    if job["learner"] != "maml-sinusoid":
        y, query_y = y.argmax(-1), query_y.argmax(-1)
    if x.dtype == torch.uint8:
        x, query_x = x.unsqueeze(3), query_x.unsqueeze(3)
    return list(zip(x, y, query_x, query_y, strict=True))


# Networks


def conv4(pool, norm):
    """Returns the network of `learners.conv4`, with `norm="batch"` or `"none"`."""
    stride = 2 if pool == "stride" else 1
    modules, channels = [], 1
    for _ in range(4):
        modules.append(
            nn.Conv2d(channels, FILTERS, 3, stride, padding=1, bias=not norm)
        )
        if norm:
            modules.append(nn.BatchNorm2d(FILTERS))
        modules.append(nn.ReLU())
        if pool == "max":
            modules.append(nn.MaxPool2d(2))
        channels = FILTERS
    return nn.Sequential(*modules, nn.Flatten())


def network_and_loss(job):
    """Returns what MAML adapts, and the loss of both its levels."""
    if job["learner"] == "maml-conv":
        convolutions = conv4("stride", norm=False)
        return nn.Sequential(convolutions, nn.LazyLinear(WAYS)), cross_entropy
    hidden = [nn.Linear(1, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(HIDDEN, 1)), functional.mse_loss


def cross_entropy(logits, labels):
    return functional.cross_entropy(logits, labels)


# Steps


def loop_over_episodes(parameters, loss_of_episode):
    """Returns a step that goes through the episodes one by one."""
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters)

    def step(x, y, query_x, query_y):
        optimizer.zero_grad()
        for episode in zip(x.float(), y, query_x.float(), query_y, strict=True):
            loss_of_episode(*episode).backward()
        for parameter in parameters:
            parameter.grad.mul_(1 / len(x))
        optimizer.step()

    return step


def whole_batch(parameters, loss_of_batch):
    """Returns a step on all episodes at once."""
    optimizer = torch.optim.Adam(parameters)

    def step(x, y, query_x, query_y):
        optimizer.zero_grad()
        loss_of_batch(x.float(), y, query_x.float(), query_y).backward()
        optimizer.step()

    return step


def learn2learn(job):
    folder = job["learn2learn"]
    if folder is None:
        raise FileNotFoundError("--learn2learn says where its sources are")
    for package in ("learn2learn", "learn2learn.algorithms", "learn2learn.nn"):
        without_init(package, os.path.join(folder, *package.split(".")))
    if job["learner"] == "protonet":
        return learn2learn_prototypes(job)
    return learn2learn_maml(job)


def learn2learn_prototypes(job):
    from learn2learn.nn.protonet import PrototypicalClassifier

    features = conv4(job["pool"], norm=True)
    classifier = PrototypicalClassifier(distance="euclidean")

    def loss_of_episode(x, y, query_x, query_y):
        embeddings = features(torch.cat([x, query_x]))
        classifier.fit_(embeddings[: len(x)], y)
        return functional.cross_entropy(classifier(embeddings[len(x) :]), query_y)

    return loop_over_episodes(features.parameters(), loss_of_episode)


def learn2learn_maml(job):
    from learn2learn.algorithms.maml import MAML

    network, loss = network_and_loss(job)
    initialize(network, job)
    maml = MAML(network, lr=INNER_RATE, first_order=False)

    def loss_of_episode(x, y, query_x, query_y):
        learner = maml.clone()
        for _ in range(job["inner_steps"]):
            learner.adapt(loss(learner(x), y))
        return loss(learner(query_x), query_y)

    return loop_over_episodes(maml.parameters(), loss_of_episode)


def easyfsl(job):
    spec = importlib.util.find_spec("easyfsl")
    if spec is None:
        raise ImportError("easyfsl is not installed")
    folder = os.path.join(spec.submodule_search_locations[0], "methods")
    without_init("easyfsl.methods", folder)
    from easyfsl.methods.prototypical_networks import PrototypicalNetworks

    classifier = PrototypicalNetworks(conv4(job["pool"], norm=True))
    classifier.train()

    def loss_of_episode(x, y, query_x, query_y):
        classifier.process_support_set(x, y)
        return functional.cross_entropy(classifier(query_x), query_y)

    return loop_over_episodes(classifier.parameters(), loss_of_episode)


def without_init(package, folder):
    """Imports a package without its `__init__`, which needs what no row uses.

    That is gym and compiled extensions in learn2learn, and torchvision in easyfsl.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(folder)
    module = types.ModuleType(package)
    module.__path__ = [folder]
    sys.modules[package] = module


def torch_func(job):
    network, loss = network_and_loss(job)
    initialize(network, job)
    parameters = dict(network.named_parameters())

    def loss_at(weights, x, y):
        return loss(torch.func.functional_call(network, weights, (x,)), y)

    def loss_of_episode(weights, x, y, query_x, query_y):
        for _ in range(job["inner_steps"]):
            slopes = torch.func.grad(loss_at)(weights, x, y)
            weights = {k: w - INNER_RATE * slopes[k] for k, w in weights.items()}
        return loss_at(weights, query_x, query_y)

    of_each = torch.func.vmap(loss_of_episode, in_dims=(None, 0, 0, 0, 0))
    return whole_batch(
        parameters.values(), lambda *episodes: of_each(parameters, *episodes).mean()
    )


def initialize(network, job):
    """Runs the network once, so that the last layer knows its inputs."""
    network(
        torch.zeros((1, 1) if job["learner"] == "maml-sinusoid" else (1, 1, 28, 28))
    )


# Recurrent learners by hand


class MemoryAugmented(nn.Module):
    """An LSTM cell with a memory, the steps of `MemoryAugmented`."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES + WAYS + READS * SLOT_SIZE, UNITS)
        self.interface = nn.Linear(UNITS, READS * (SLOT_SIZE + 2))
        self.head = nn.Linear(UNITS + READS * SLOT_SIZE, WAYS)

    def forward(self, x, y, query_x):
        labels = functional.one_hot(y, WAYS).float()
        states = self.wiped(len(x))
        for token in torch.cat([x, labels], -1).unbind(1):
            states = self.access(token, states)
        tasks, queries = query_x.shape[:2]
        unknown = torch.zeros(tasks, queries, WAYS)
        tokens = torch.cat([query_x, unknown], -1).flatten(0, 1)
        states = [state.repeat_interleave(queries, 0) for state in states]
        hidden, _, read, *_ = self.access(tokens, states)
        return self.head(torch.cat([hidden, read], -1))  # B Q, ways

    def wiped(self, tasks):
        first = functional.one_hot(torch.zeros(tasks, dtype=torch.long), SLOTS).float()
        return [
            torch.zeros(tasks, UNITS),
            torch.zeros(tasks, UNITS),
            torch.zeros(tasks, READS * SLOT_SIZE),
            torch.full((tasks, SLOTS, SLOT_SIZE), 1e-6),
            first.unsqueeze(1).repeat(1, READS, 1),
            first,
        ]

    def access(self, token, states):
        hidden, carry, read, memory, read_weight, usage = states
        hidden, carry = self.cell(torch.cat([token, read], -1), (hidden, carry))
        said = self.interface(hidden).unflatten(-1, (READS, SLOT_SIZE + 2))
        key = torch.tanh(said[..., :SLOT_SIZE])
        strength = functional.softplus(said[..., -2:-1] + 10.0)
        gate = torch.sigmoid(said[..., -1:])
        rows = torch.topk(usage.detach(), READS, largest=False).indices
        least = functional.one_hot(rows, SLOTS).float()  # B, R, slots
        write_weight = gate * read_weight + (1 - gate) * least
        memory = memory * (1 - least[:, 0, :, None]) + write_weight.mT @ key
        similarity = unit(key) @ unit(memory).mT
        read_weight = torch.softmax(strength * similarity, -1)
        usage = USAGE_DECAY * usage + (read_weight + write_weight).sum(1)
        read = (read_weight @ memory).flatten(1)
        return hidden, carry, read, memory, read_weight, usage


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-8)


class Recurrent(nn.Module):
    """An LSTM, whose state after the support each query starts from."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(FEATURES + WAYS, LSTM_UNITS, batch_first=True)
        self.head = nn.Linear(LSTM_UNITS, WAYS)

    def forward(self, x, y, query_x):
        labels = functional.one_hot(y, WAYS).float()
        _, states = self.lstm(torch.cat([x, labels], -1))
        tasks, queries = query_x.shape[:2]
        unknown = torch.zeros(tasks, queries, WAYS)
        tokens = torch.cat([query_x, unknown], -1).flatten(0, 1).unsqueeze(1)
        states = tuple(state.repeat_interleave(queries, 1) for state in states)
        output, _ = self.lstm(tokens, states)
        return self.head(output[:, 0])  # B Q, ways


def by_hand(job):
    model = MemoryAugmented() if job["learner"] == "mann" else Recurrent()

    def loss_of_batch(x, y, query_x, query_y):
        return functional.cross_entropy(model(x, y, query_x), query_y.flatten())

    return whole_batch(model.parameters(), loss_of_batch)


PEERS = {
    "learn2learn": learn2learn,
    "easyfsl": easyfsl,
    "torch.func": torch_func,
    "torch": by_hand,
}


if __name__ == "__main__":
    main()
