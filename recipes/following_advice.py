"""Trains what the advice of a transfer study says, beside what it was drawn from."""

import math
from typing import NamedTuple

import keras

from keras_mtl.analysis import REMEDIES
from keras_mtl.metrics import RelativeImprovement, ResultsTable


class Network(NamedTuple):
    """One network.

    Attributes:
        tasks: Those that it is trained for.
        used_for: Those whose predictions are taken from it.
        wider: Whether its trunk is wider.
        compiled: Arguments of `compile` that are changed.
    """

    tasks: tuple[str, ...]
    used_for: tuple[str, ...]
    wider: bool = False
    compiled: dict | None = None

    def __str__(self):
        said = " + ".join(self.tasks)
        said += ", wider" if self.wider else ""
        said += f", {self.compiled}" if self.compiled else ""
        return f"({said}) for {', '.join(self.used_for)}"


def networks(advice):
    """Returns the networks that advice asks for.

    Tasks that had better share less, or leave, have a network of their own; the others
    are together, in a wider trunk and with a remedy if one of them asks for it; of two
    remedies the first is taken. A task may be in both: who should share more keeps its
    partners, as company.
    """
    apart = [t for t, a in advice.items() if a.verdict in ("share less", "leave out")]
    found = [Network((task,), (task,)) for task in apart]
    asked = {task: a for task, a in advice.items() if task not in apart}
    if asked:
        company = {
            partner
            for a in asked.values()
            if a.verdict == "share more"
            for partner in a.partners
        }
        tasks = tuple(task for task in advice if task in asked or task in company)
        if len(tasks) == 1:  # What is for company is not for one.
            return [*found, Network(tasks, tasks)]
        remedy = next((a.remedy for a in asked.values() if a.remedy in REMEDIES), None)
        wider = any(a.verdict == "widen" for a in asked.values())
        found.append(Network(tasks, tuple(asked), wider, REMEDIES.get(remedy)))
    return found


def compare(study, test, report, metrics, higher_is_better, groups=False):
    """Prints the test metrics of single tasks, all together, and as advised.

    Networks are trained anew with other seeds than those of the study, and taken at
    the epoch with the best loss on the validation data. Delta-m is the mean relative
    improvement over the networks for single tasks of the same seed.

    Args:
        study: The `TransferStudy`.
        test: `(x, y)` of the test data.
        report: Its `TransferReport`.
        metrics: By task, the name of the metric in the logs of `evaluate`.
        higher_is_better: Whether more of them is better.
        groups: Whether the groups of tasks that it recommends are compared, too.
    """
    tasks = tuple(study.task_names)
    ways = {
        "single-task": [Network((task,), (task,)) for task in tasks],
        "together": [Network(tasks, tasks)],
        "as advised": networks(report.advice),
    }
    recommended = {
        "groups by affinity": report.groups,
        "groups by pairs": report.groups_of_pairs,
    }
    for way, found in recommended.items():
        if groups and found:
            ways[way] = [Network(tuple(group), tuple(group)) for group in found]
    for way in list(ways)[2:]:
        print(f"{way}: {'; '.join(map(str, ways[way]))}")
    names = list(metrics.values())
    table = ResultsTable(
        {**dict.fromkeys(names, higher_is_better), "delta-m %": True},
        digits={**dict.fromkeys(names, 4), "delta-m %": 2},
        title=f"Test data, {study.seeds} seeds",
    )
    for seed in range(100, 100 + study.seeds):
        alone = {}
        for way, needed in ways.items():
            scores = {}
            for network in needed:
                scores |= train(study, network, test, metrics, seed)
            alone = alone or scores
            improvement = RelativeImprovement(alone, higher_is_better)
            table.add(way, {**scores, "delta-m %": improvement(scores)})
    table.print()


def train(study, network, test, metrics, seed):
    """Returns the test metrics by name of what one network is used for."""
    keras.utils.set_random_seed(seed)
    width = {"width": float(len(study.task_names))} if network.wider else {}
    model = study.build(list(network.tasks), **width)
    if network.compiled:
        model.compile(**{**model.compile_arguments, **network.compiled})

    def of_tasks(data):
        x, y = data
        return x, {task: y[task] for task in network.tasks}

    model.fit(
        *of_tasks(study.data),
        validation_data=of_tasks(study.validation_data),
        callbacks=[
            keras.callbacks.EarlyStopping(patience=10**6, restore_best_weights=True)
        ],
        **study.fit_arguments,
    )
    logs = model.evaluate(*of_tasks(test), verbose=0, return_dict=True)
    found = {metrics[task]: logs[metrics[task]] for task in network.used_for}
    assert all(map(math.isfinite, found.values()))
    return found
