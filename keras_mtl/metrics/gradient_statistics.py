"""What the gradients of the tasks say of each other, as a metric."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.metrics.gradient_cosines import gradient_cosines

KINDS = ("norms", "weights", "conflict_rate", "cosines")
"""What can be logged."""


@keras.saving.register_keras_serializable("keras_mtl")
class GradientStatistics(keras.metrics.Metric):
    """Norms, weights, conflicts and cosines of task gradients, averaged over batches.

    $$ |g_k| = \\sqrt{G_{kk}}, \\qquad
       \\cos(g_j, g_k) = \\frac{G_{jk}}{|g_j| |g_k|} $$

    all of the Gramian G that an aggregator has anyway. A pair of tasks that are both
    in the batch, with gradients that are not zero, is in conflict if its cosine is
    negative; the conflict rate is the share of such pairs. A task's numbers are means
    over the batches that it is in.

    Results are named `<task>_gradient_norm`, `<task>_gradient_weight`,
    `conflict_rate`, and `cosine_<task>_<task>` for each pair of tasks.

    Args:
        task_names: Names of the T tasks.
        kinds: What to report, of `"norms"`, `"weights"`, `"conflict_rate"` and
            `"cosines"`. Defaults to all four.
        name: String, optional.

    Raises:
        ValueError: If a kind is unknown.

    Example:

    ```python
    statistics = keras_mtl.metrics.GradientStatistics(["a", "b"])
    statistics.update_state(np.array([[4.0, -1.0], [-1.0, 1.0]]), np.ones(2))
    statistics.result()["cosine_a_b"]  # -0.5
    statistics.result()["conflict_rate"]  # 1.0
    ```

    Reference:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
        https://arxiv.org/abs/2001.06782
    """

    def __init__(
        self,
        task_names: Sequence[str],
        kinds: Sequence[str] = KINDS,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or "gradient_statistics", dtype=dtype)
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"`kinds` must be of {list(KINDS)}. Received: {unknown}")
        self.task_names = list(task_names)
        self.kinds = [kind for kind in KINDS if kind in kinds]
        size = len(self.task_names)
        self._pairs = np.triu_indices(size, k=1)

        def zeros(name, shape):
            return self.add_variable(shape, initializer="zeros", name=name)

        self.norms = zeros("norms", (size,))
        self.weights = zeros("weights", (size,))
        self.batches = zeros("batches", (size,))
        self.gradients = zeros("gradients", (size,))
        self.cosines = zeros("cosines", (size, size))
        self.conflicts = zeros("conflicts", (size, size))
        self.pair_batches = zeros("pair_batches", (size, size))

    @property
    def result_names(self) -> list[str]:
        """Keys of the result, in their order."""
        names = {
            "norms": [f"{task}_gradient_norm" for task in self.task_names],
            "weights": [f"{task}_gradient_weight" for task in self.task_names],
            "conflict_rate": ["conflict_rate"],
            "cosines": [
                f"cosine_{self.task_names[i]}_{self.task_names[j]}"
                for i, j in zip(*self._pairs, strict=True)
            ],
        }
        return [name for kind in self.kinds for name in names[kind]]

    def update_state(
        self,
        gramian: Any,
        weights: Any = None,
        present: Any = None,
        counted: Any = True,
    ) -> None:
        """Adds a batch.

        Args:
            gramian: Products of the tasks' gradients `(T, T)`.
            weights: Their weights `(T,)`, if they have any.
            present: 1 for tasks with labels, else 0, `(T,)`. Defaults to all ones.
            counted: Whether the gradients are those of this batch. The weights are
                counted anyway.
        """
        gramian = ops.cast(gramian, self.dtype)
        if present is None:
            present = np.ones(len(self.task_names))
        present = ops.cast(present, self.dtype)
        if weights is not None and "weights" in self.kinds:
            weights = ops.cast(weights, self.dtype)
            self.weights.assign_add(ops.where(present > 0, weights, 0.0))
        counted = ops.cast(counted, self.dtype) * present
        norms, pairs, cosines = gradient_cosines(gramian, counted)
        self.batches.assign_add(present)
        self.gradients.assign_add(counted)
        self.norms.assign_add(counted * norms)
        self.cosines.assign_add(cosines)
        self.conflicts.assign_add(ops.cast(cosines < 0, self.dtype))
        self.pair_batches.assign_add(pairs)

    def result(self) -> dict[str, Any]:
        """Returns the means by name; 0 for what was never seen."""
        found = []
        batches = ops.convert_to_tensor(self.batches)
        pairs = ops.convert_to_tensor(self.pair_batches)
        if "norms" in self.kinds:
            found += ops.unstack(
                ops.divide_no_nan(
                    ops.convert_to_tensor(self.norms),
                    ops.convert_to_tensor(self.gradients),
                )
            )
        if "weights" in self.kinds:
            found += ops.unstack(
                ops.divide_no_nan(ops.convert_to_tensor(self.weights), batches)
            )
        if "conflict_rate" in self.kinds:
            conflicts = ops.convert_to_tensor(self.conflicts)
            others = ops.sum(pairs) - ops.trace(pairs)
            found.append(ops.divide_no_nan(ops.sum(conflicts), others))
        if "cosines" in self.kinds:
            means = ops.divide_no_nan(ops.convert_to_tensor(self.cosines), pairs)
            flat = ops.reshape(means, (-1,))
            places = self._pairs[0] * len(self.task_names) + self._pairs[1]
            found += ops.unstack(ops.take(flat, places), len(places))
        return dict(zip(self.result_names, found, strict=True))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "task_names": self.task_names,
            "kinds": self.kinds,
        }
