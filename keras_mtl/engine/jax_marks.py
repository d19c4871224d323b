"""What Python knows of a step on JAX before it runs; a compiled step for each case.

A condition of the graph would do for one compiled step. But on CPUs XLA does not look
into branches with its passes for convolutions, whose gradients take 20 times as long
there.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import keras

from keras_mtl.engine.gradient_probe import GradientProbe
from keras_mtl.engine.jax_forward import index_of


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["batch"],
    meta_fields=["probes", "weights_due"],
)
@dataclass(frozen=True)
class MarkedBatch:
    """A batch, and what is due in its step. Only the first is data, and traced.

    Attributes:
        batch: The batch.
        probes: The probes, each with the periods that are due.
        weights_due: Whether the aggregator is known to need new gradients. If not, it
            is for the graph to say.
    """

    batch: Any
    probes: tuple[tuple[GradientProbe, tuple[int, ...]], ...]
    weights_due: bool


def marking(
    function: Callable[[Any, Any], tuple[Any, Any]], model: Any
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns Keras's function of training steps on batches that are marked.

    Args:
        function: Called with a state and an iterator over batches, of which it takes
            one for each step of an execution; returns logs and the state.
        model: The `MultiTaskModel`.
    """
    clock = _Clock(model)

    def run(state: Any, iterator: Iterator[Any]) -> tuple[Any, Any]:
        clock.set_by(state)
        logs, state = function(state, map(clock.mark, iterator))
        clock.remember(state)
        return logs, state

    return run


class _Clock:
    """Counts the steps of a model.

    Args:
        model: The `MultiTaskModel`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._step = 0
        self._index = 0
        self._last: Any = None

    @property
    def _counter(self) -> tuple[keras.Variable, int] | None:
        aggregator = self._model.aggregator
        return None if aggregator is None else aggregator.counter

    def set_by(self, state: Any) -> None:
        """Reads the counter of a state, if it is not the one that was remembered.

        That waits for the device: at the start of an epoch, and where a callback has
        changed the variables.
        """
        if self._counter is None:
            return
        values = state[1]
        if self._index >= len(values) or values[self._index] is not self._last:
            variables = self._model.non_trainable_variables
            self._index = index_of(self._counter[0], variables)
            self._step = int(values[self._index])

    def remember(self, state: Any) -> None:
        """Takes note of the state that the steps counted so far have led to."""
        if self._counter is not None:
            self._last = state[1][self._index]

    def mark(self, batch: Any) -> MarkedBatch:
        """Returns a batch with what is due in its step, which is counted."""
        weights_due = False
        if self._counter is not None:
            weights_due = self._step == 0
            self._step = (self._step + 1) % self._counter[1]
        probes = tuple((p, p.count_step()) for p in self._model._gradient_probes)
        return MarkedBatch(batch, probes, weights_due)
