"""Regression tasks of few points."""

from typing import Any, Protocol

import keras
import numpy as np

from keras_mtl.argument_checks import check_count
from keras_mtl.data.size_range import SizeRange, draw_from, shape_noise


class TaskFamily(Protocol):
    """What regression tasks are drawn from."""

    def draw(
        self, generator: np.random.Generator, num_tasks: int, num_points: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns points x and y of tasks, both `(num_tasks, num_points, ...)`.

        Args:
            generator: Where all that is random comes from.
            num_tasks: How many tasks.
            num_points: How many points of each.
        """
        ...


class RegressionEpisodes(keras.utils.PyDataset):
    """Few-shot regression: batches of tasks drawn from a family.

    An episode is a function of its own, of which `shots` points are in the support and
    `queries` others are to be predicted. A batch is `(inputs, y)` for `fit` of a
    `MetaModel`, with B episodes:

    - `inputs["support_x"]` `(B, S, ...)`, `inputs["support_y"]` `(B, S, Dy)`,
      `inputs["support_mask"]` `(B, S)`, booleans, and `inputs["query_x"]`
      `(B, Q, ...)`;
    - `y` `(B, Q, Dy)`; a third entry `(B, Q)` is 0 for queries that are padding, where
      a range of sizes makes any.

    Batch b is a function of `seed` and b, whoever asks for it. Of ranges, batch 0 is of
    the smallest sizes and batch 1 of the largest.

    Args:
        family: `Sinusoids`, `GaussianProcesses`, `GroupedRows`, or any object with a
            method `draw(generator, num_tasks, num_points)` that returns x and y.
        shots: Integer or pair of the least and the greatest, points of the support.
            Defaults to 10.
        queries: Integer or pair, other points. Defaults to 10.
        most_points: Integer, how many points an episode has at most: where shots and
            queries are more together, queries are fewer. Defaults to `None`, no limit.
        queries_with_support: Boolean, whether the points of the support are among the
            queries, as neural processes are trained with. Defaults to `False`.
        episodes_per_batch: Integer, B. Defaults to 16.
        num_batches: Integer, number of batches. Defaults to `None`, without end.
        shapes: Integer, the number of intervals that each range is parted in.
            Defaults to 3.
        seed: Non-negative integer. Defaults to 0.
        **kwargs: Arguments of `keras.utils.PyDataset`.

    Raises:
        ValueError: If an argument is out of range, or what the family draws does not
            fit.

    Example:

    ```python
    train = keras_mtl.data.RegressionEpisodes(
        keras_mtl.data.Sinusoids(), shots=(5, 10), queries=10
    )
    inputs, y = train[0]
    assert y.shape == (16, 10, 1)
    ```

    Reference:
        Garnelo et al., "Conditional Neural Processes", ICML 2018,
        https://arxiv.org/abs/1807.01613
    """

    def __init__(
        self,
        family: TaskFamily,
        shots: int | tuple[int, int] = 10,
        queries: int | tuple[int, int] = 10,
        most_points: int | None = None,
        queries_with_support: bool = False,
        episodes_per_batch: int = 16,
        num_batches: int | None = None,
        shapes: int = 3,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(getattr(family, "draw", None)):
            raise ValueError(
                "`family` must have a method `draw(generator, num_tasks, num_points)`. "
                f"Received: family={family!r}"
            )
        self.family = family
        self.shots = SizeRange("shots", shots, check_count("shapes", shapes))
        self.queries = SizeRange("queries", queries, shapes)
        self.most_points = most_points
        if most_points is not None:
            check_count("most_points", most_points, at_least=self.shots.high + 1)
        self.queries_with_support = queries_with_support
        self.episodes_per_batch = check_count("episodes_per_batch", episodes_per_batch)
        if num_batches is not None:
            check_count("num_batches", num_batches)
        self._num_batches = num_batches
        self.seed = check_count("seed", seed, at_least=0)
        if hasattr(family, "check_points"):
            family.check_points(self.shots.high + self.queries.high)

    @property
    def num_batches(self) -> int | None:
        """Number of batches, None for no end."""
        return self._num_batches

    def __getitem__(self, index: int) -> tuple:
        """Returns a batch."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(index,))
        generator = np.random.default_rng(sequence)
        batch = self.episodes_per_batch
        noise = shape_noise(index, generator.uniform(size=2))
        shots = self.shots.interval(noise[0])
        queries = self.queries.interval(noise[1])
        num_shots = draw_from(shots, generator.uniform(size=batch))
        num_queries = draw_from(queries, generator.uniform(size=batch))
        most = shots[1] + queries[1]
        if self.most_points is not None:
            num_queries = np.minimum(num_queries, self.most_points - num_shots)
        x, y = self._draw(generator, batch, most)
        shown = np.arange(shots[1]) < num_shots[:, None]
        asked = np.arange(queries[1]) < num_queries[:, None]
        inputs = {
            "support_x": x[:, : shots[1]],
            "support_y": y[:, : shots[1]],
            "support_mask": shown,
            "query_x": x[:, shots[1] :],
        }
        labels = y[:, shots[1] :]
        if self.queries_with_support:
            inputs["query_x"], labels = x, y
            asked = np.concatenate([shown, asked], axis=1)
        if self._never_pads():
            return inputs, labels
        return inputs, labels, asked.astype("float32")

    def _never_pads(self) -> bool:
        """Whether every query of every batch is asked."""
        if not self.queries.fixed:
            return False
        if self.queries_with_support and not self.shots.fixed:
            return False
        points = self.shots.high + self.queries.high
        return self.most_points is None or points <= self.most_points

    def _draw(
        self, generator: np.random.Generator, batch: int, points: int
    ) -> tuple[np.ndarray, np.ndarray]:
        x, y = (
            np.asarray(drawn) for drawn in self.family.draw(generator, batch, points)
        )
        for name, drawn in (("x", x), ("y", y)):
            if drawn.ndim < 3 or drawn.shape[:2] != (batch, points):
                raise ValueError(
                    f"`family.draw` must return arrays of shape ({batch}, {points}, "
                    f"...), tasks and points first. Received: {name} of shape "
                    f"{drawn.shape}"
                )
        if x.dtype == "float64":
            x = x.astype("float32")
        return x, y.astype("float32")
