"""How the gates in a model use their experts, averaged over batches."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.sharing.gate import Gate
from keras_mtl.metrics.task_means import TaskMeans


class GateMeans:
    """Means of a gate's entropy and of its largest mean weight, for each task.

    They are named `<task>_gate_entropy` and `<task>_gate_top_share`, or, where a model
    has several gates, with the name of the gate.

    Args:
        gate: The gate.
        name: What stands for the gate in the names.
    """

    def __init__(self, gate: Gate, name: str) -> None:
        self.gate = gate
        self.entropies = TaskMeans(gate.task_names, f"{name}_entropy")
        self.top_shares = TaskMeans(gate.task_names, f"{name}_top_share")

    def update_state(self) -> None:
        """Adds the figures of the last batch."""
        ones = ops.ones((self.gate.num_tasks,))
        self.entropies.update_state(ops.convert_to_tensor(self.gate.entropy), ones)
        utilization = ops.convert_to_tensor(self.gate.utilization)
        self.top_shares.update_state(ops.max(utilization, axis=-1), ones)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The two metric objects."""
        return [self.entropies, self.top_shares]


def gate_means(layers: Sequence[Any]) -> list[GateMeans]:
    """Returns the means of every gate among layers."""
    gates = [layer for layer in layers if isinstance(layer, Gate)]
    if len(gates) == 1:
        return [GateMeans(gates[0], "gate")]
    names = [gate.name for gate in gates]
    if len(set(names)) < len(names):
        names = [f"{name}_{index}" for index, name in enumerate(names)]
    return [GateMeans(gate, name) for gate, name in zip(gates, names, strict=True)]
