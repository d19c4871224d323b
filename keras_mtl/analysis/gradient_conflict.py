"""Where the gradients of tasks are in each other's way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_mtl.analysis.data_frame import data_frame
from keras_mtl.analysis.probe_callback import ProbeCallback
from keras_mtl.engine.gradient_probe import GradientProbe, ProbedBatch
from keras_mtl.metrics.gradient_cosines import gradient_cosines

ALL = "all shared"
"""Name of the row of all shared layers together."""


@dataclass(frozen=True)
class LayerConflict:
    """What gradients say of each other, by layer: means over the steps measured.

    Arrays are `(L + 1, T, T)` or `(L + 1, T)`: a row for each of L shared layers, and
    the last for all of them together. NaN where nothing was measured.

    Attributes:
        cosines: Cosines of the gradients of pairs of tasks.
        conflict_rate: In what part of the steps the cosine was negative.
        norms: Norms of the gradients.
        steps: In how many steps a pair was measured.
    """

    cosines: np.ndarray
    conflict_rate: np.ndarray
    norms: np.ndarray
    steps: np.ndarray

    @property
    def magnitude_ratio(self) -> np.ndarray:
        """Norm of one task's gradient by that of another, `(L + 1, T, T)`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.norms[:, :, None] / self.norms[:, None, :]


class GradientConflict(ProbeCallback):
    """Measures by layer whether the gradients of tasks conflict, while `fit` trains.

    With the gradients $g_i$ of the task losses, weighted as in an evaluation (a
    weighting that draws at random has its mean), by the variables of a layer that tasks
    i and j share, means over every n-th step of

    $$ \\cos(g_i, g_j) = \\frac{g_i \\cdot g_j}{|g_i| |g_j|}, \\qquad
       [\\cos(g_i, g_j) < 0], \\qquad |g_i| $$

    the cosine, the conflict rate and the norms, of which the magnitude ratio is that of
    two tasks. Steps in which a task has no label or no gradient do not count for its
    pairs. Chance alone makes a conflict rate of one half.

    The measurement is part of the compiled training step, and changes nothing of the
    training: a forward pass on a part of the batch and a backward pass for each task,
    every n-th step. A step took 1.04 to 1.13 times that without, with `every=10` and 2
    or 8 tasks (`python benchmarks/analysis.py`, docs/speed.md).

    Args:
        every: Integer, n. Defaults to 10.
        fraction: Float in (0, 1], the part of a batch that is looked at. Cosines of few
            rows are closer to 0, as gradients are noisier. Defaults to `None`: what
            takes less than a tenth of the time of training with `every=10`, 0.48 for
            two tasks, and more only if n is greater; at most all.

    After or while training it has the attributes `task_names`; `layer_names`, from the
    input on, the last of them `"all shared"`; `history`, a `LayerConflict` for each
    epoch; and `total`, that of the whole training.

    Raises:
        TypeError: If the model is no `MultiTaskModel`.
        ValueError: If tasks share no variables, the model is not built, or it trains on
            several replicas.

    Example:

    ```python
    x = keras.Input((4,))
    h = keras.layers.Dense(8, "relu", name="trunk")(x)
    model = keras_mtl.MultiTaskModel(x, {t: keras.layers.Dense(1)(h) for t in "ab"})
    model.compile("adam", loss="mse")
    data = np.random.default_rng(0).normal(size=(64, 4))
    labels = {"a": data[:, 0], "b": data[:, 1]}
    conflict = keras_mtl.analysis.GradientConflict(every=2)
    model.fit(data, labels, batch_size=16, verbose=0, callbacks=[conflict])
    print(conflict.layer_names)  # ['trunk', 'all shared']
    print(conflict.total.cosines[-1])  # 1 on the diagonal
    ```

    Reference:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
        https://arxiv.org/abs/2001.06782
    """

    def __init__(self, every: int = 10, fraction: float | None = None) -> None:
        super().__init__(every, fraction)

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers, in the order of the arrays."""
        return [layer.name for layer in self.layers] + [ALL]

    def to_frame(self) -> Any:
        """Returns a `pandas.DataFrame`, a row for each epoch, layer and pair of tasks.

        Its columns are epoch, layer, task, other, cosine, conflict_rate,
        magnitude_ratio (norm of task by norm of other) and steps.
        """
        rows = []
        for epoch, found in zip(self.epochs, self.history, strict=True):
            ratio = found.magnitude_ratio
            for place, layer in enumerate(self.layer_names):
                for i, j in zip(*np.triu_indices(len(self.task_names), 1), strict=True):
                    rows.append(
                        {
                            "epoch": epoch,
                            "layer": layer,
                            "task": self.task_names[i],
                            "other": self.task_names[j],
                            "cosine": found.cosines[place, i, j],
                            "conflict_rate": found.conflict_rate[place, i, j],
                            "magnitude_ratio": ratio[place, i, j],
                            "steps": int(found.steps[place, i, j]),
                        }
                    )
        return data_frame(
            rows,
            [
                *("epoch", "layer", "task", "other"),
                *("cosine", "conflict_rate", "magnitude_ratio", "steps"),
            ],
        )

    def _make_probe(self, fraction: float) -> GradientProbe:
        layers = [layer.positions for layer in self.layers]
        served = np.array(
            [[task in layer.tasks for task in self.task_names] for layer in self.layers]
        )
        served = np.vstack([served, served.any(axis=0)]).astype("float32")
        return _Probe(layers, served, self.every, fraction)

    def _means(self, sums: list[np.ndarray]) -> LayerConflict:
        return _means(sums)


class _Probe(GradientProbe):
    """Adds up cosines, conflicts and norms by layer."""

    def __init__(
        self,
        layers: Sequence[Sequence[int]],
        served: np.ndarray,
        every: int,
        fraction: float,
    ) -> None:
        super().__init__([every], fraction, True, True, "gradient_conflict")
        self.layers = layers
        self.served = served
        of_pairs = (*served.shape, served.shape[1])
        for name in ("cosines", "conflicts", "pairs"):
            self.add_sum(of_pairs, name)
        for name in ("norms", "counts"):
            self.add_sum(of_pairs[:2], name)

    def measure(self, batch: ProbedBatch) -> list[Any]:
        by_layer = batch.gramians(self.layers)
        of_all = ops.sum(by_layer, axis=0, keepdims=True)
        gramian = ops.concatenate([by_layer, of_all])
        norms, pairs, cosines = gradient_cosines(gramian, batch.present)
        conflicts = ops.cast(cosines < 0, "float32")
        counts = batch.present[None] * ops.convert_to_tensor(self.served)
        return [cosines, conflicts, pairs, norms * counts, counts]


def _means(sums: list[np.ndarray]) -> LayerConflict:
    cosines, conflicts, pairs, norms, counts = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return LayerConflict(cosines / pairs, conflicts / pairs, norms / counts, pairs)
