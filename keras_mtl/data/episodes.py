"""Tasks of few examples: a support set to learn from, and queries to answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mtl.argument_checks import check_choice, check_count
from keras_mtl.data.class_split import ClassSubset
from keras_mtl.data.class_table import ClassTable
from keras_mtl.data.counter_noise import CounterNoise, NoiseColumns
from keras_mtl.data.distinct_draws import distinct_width, draw_distinct
from keras_mtl.data.size_range import SizeRange, draw_from, shape_noise

_ROTATIONS = 4


@dataclass(frozen=True)
class _Shape:
    """The intervals that the episodes of a batch draw their sizes from."""

    ways: tuple[int, int]
    shots: tuple[int, int]
    queries: tuple[int, int]


class Episodes(keras.utils.PyDataset):
    """Few-shot classification: batches of episodes drawn from labelled data.

    An episode is a small task of its own. It has `ways` classes, drawn from all; of
    each there are `shots` labelled examples in the support, and `queries` others to
    classify. Its labels are 0 to ways - 1, dealt to the classes anew in every episode,
    and support and queries are in random order: so what a label means is in the
    support, and nowhere else.

    A batch is `(inputs, labels)` for `fit` and `evaluate` of a `MetaModel`, with B
    episodes, N ways, S = ways x shots examples and Q = ways x queries queries:

    - `inputs["support_x"]` `(B, S, ...)` and `inputs["query_x"]` `(B, Q, ...)`, of the
      dtype of the data;
    - `inputs["support_y"]` `(B, S, N)`, one-hot, and `inputs["support_mask"]` `(B, S)`,
      booleans, false for padding;
    - `labels` `(B, Q, N)`, one-hot; with `labels_as="index"` both are `(B, S)` and
      `(B, Q)`, int32;
    - a third entry `(B, Q)`, float32, is 0 for queries that are padding, where a range
      of sizes makes any.

    Ranges, such as `shots=(1, 5)`: every episode draws a number of its own. Batches
    come in a few shapes only (`shapes`), padded at the end, so that compiled steps are
    few; batch 0 is of the smallest and batch 1 of the largest. With `uneven=True` every
    class of an episode draws shots of its own.

    **Reproducible, in any order.** Of the same arguments batch b is a function of
    `seed` and b alone, whoever asks for it; and with fixed sizes episode i one of
    `seed` and i, in whatever batch it is. Use `num_batches` for a fixed set of episodes
    to validate or test on.

    Args:
        x: Array `(n, ...)`, also memory-mapped. It is read by rows and not copied.
        labels: Array `(n,)`, the class of each row.
        classes: The classes to draw from: a list, or a part of a `ClassSplit`.
            Defaults to `None`, all.
        ways: Integer, or pair of the least and the greatest. Defaults to 5.
        shots: Integer or pair, labelled examples of each class. Defaults to 1.
        queries: Integer or pair, queries of each class. Defaults to 15.
        episodes_per_batch: Integer, B. Defaults to 16.
        num_batches: Integer, number of batches. Defaults to `None`: without end, so
            that `fit` needs `steps_per_epoch`.
        uneven: Boolean, whether classes of an episode have different shots. Defaults
            to `False`.
        rotations: Boolean, whether each class turned by 90, 180 and 270 degrees is
            another class; x then are square images `(n, H, H, ...)`. Defaults to
            `False`.
        groups: Group of each row `(n,)`: the classes of an episode are drawn from one
            group, such as the characters of an alphabet. Defaults to `None`.
        labels_as: `"one_hot"` or `"index"`. Defaults to `"one_hot"`.
        shapes: Integer, the number of intervals that each range is parted in.
            Defaults to 3.
        seed: Non-negative integer. Defaults to 0.
        **kwargs: Arguments of `keras.utils.PyDataset`: `workers`,
            `use_multiprocessing`, `max_queue_size`.

    Raises:
        ValueError: If there are fewer classes than ways (in each group), fewer rows
            of a class than shots and queries, or an argument is out of range.

    Example:

    ```python
    images = np.zeros((200, 28, 28), "uint8")
    labels = np.repeat(np.arange(10), 20)
    split = keras_mtl.data.ClassSplit(train=range(6), test=range(6, 10))
    train = keras_mtl.data.Episodes(
        images, labels, split.train, ways=3, shots=(1, 5), rotations=True
    )
    inputs, y = train[0]
    assert inputs["query_x"].shape == (16, 45, 28, 28)
    ```

    Reference:
        Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016,
        https://arxiv.org/abs/1606.04080; Santoro et al., "Meta-Learning with
        Memory-Augmented Neural Networks", ICML 2016,
        https://proceedings.mlr.press/v48/santoro16.html (labels dealt anew)
    """

    def __init__(
        self,
        x: Any,
        labels: Any,
        classes: Sequence[Any] | ClassSubset | None = None,
        ways: int | tuple[int, int] = 5,
        shots: int | tuple[int, int] = 1,
        queries: int | tuple[int, int] = 15,
        episodes_per_batch: int = 16,
        num_batches: int | None = None,
        uneven: bool = False,
        rotations: bool = False,
        groups: Any = None,
        labels_as: str = "one_hot",
        shapes: int = 3,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_count("shapes", shapes)
        self.ways = SizeRange("ways", ways, shapes)
        self.shots = SizeRange("shots", shots, shapes)
        self.queries = SizeRange("queries", queries, shapes)
        self.episodes_per_batch = check_count("episodes_per_batch", episodes_per_batch)
        if num_batches is not None:
            check_count("num_batches", num_batches)
        self._num_batches = num_batches
        self.uneven = uneven
        self.labels_as = check_choice("labels_as", labels_as, ("one_hot", "index"))
        self.seed = check_count("seed", seed, at_least=0)
        self.subset = classes if isinstance(classes, ClassSubset) else None
        self._x = x
        self._turns = _ROTATIONS if rotations else 1
        if len(x) != len(labels):
            raise ValueError(
                "`x` and `labels` must have as many rows. "
                f"Received: {len(x)} and {len(labels)}"
            )
        if rotations and (len(x.shape) < 3 or x.shape[1] != x.shape[2]):
            raise ValueError(
                "With `rotations` the rows must be square images. "
                f"Received: x of shape {tuple(x.shape)}"
            )
        given = classes.classes if self.subset is not None else classes
        self._table = ClassTable(labels, given, groups)
        self._check_sizes()
        self._least_classes = int(self._table.sizes.min()) * self._turns
        self._most_classes = int(self._table.sizes.max()) * self._turns
        self._noise = CounterNoise(self.seed, self._noise_width())
        self._shape_noise = CounterNoise(self.seed, 3, stream=1)

    @property
    def num_batches(self) -> int | None:
        """Number of batches, None for no end."""
        return self._num_batches

    @property
    def classes(self) -> np.ndarray:
        """The classes that episodes are drawn from, as the labels call them."""
        return self._table.classes

    def check_disjoint(self, other: "Episodes") -> None:
        """Checks that other episodes are of other classes.

        Args:
            other: Other episodes from the same labels.

        Raises:
            ValueError: If they have a class in common.
        """
        shared = np.intersect1d(self.classes, other.classes)
        if len(shared):
            raise ValueError(
                "Episodes to train and to test on must have no class in common. "
                f"Received: classes {shared[:5].tolist()} in both"
            )

    def __getitem__(self, index: int) -> tuple:
        """Returns a batch."""
        first = index * self.episodes_per_batch
        shape = self._shape_of(index)
        noise = NoiseColumns(self._noise(first, self.episodes_per_batch))
        rows, turns, ways = self._draw_rows(noise, shape)
        most_shots = shape.shots[1]
        support, support_y, mask = self._in_random_order(
            noise, rows[..., :most_shots], self._shots_of(noise, shape), ways
        )
        counts = draw_from(shape.queries, noise.take())
        counts = np.broadcast_to(counts[:, None], rows.shape[:2])
        query, query_y, there = self._in_random_order(
            noise, rows[..., most_shots:], counts, ways
        )
        inputs = {
            "support_x": self._gather(support, turns, support_y),
            "support_y": self._labels(support_y, shape.ways[1]),
            "support_mask": mask,
            "query_x": self._gather(query, turns, query_y),
        }
        labels = self._labels(query_y, shape.ways[1])
        if self.ways.fixed and self.queries.fixed:
            return inputs, labels
        return inputs, labels, there.astype("float32")

    def _shape_of(self, index: int) -> _Shape:
        noise = shape_noise(index, self._shape_noise(index, 1)[0])
        sizes = (self.ways, self.shots, self.queries)
        return _Shape(*(s.interval(n) for s, n in zip(sizes, noise, strict=True)))

    def _draw_rows(
        self, noise: NoiseColumns, shape: _Shape
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws classes and rows of each.

        Returns:
            Rows `(B, W, shots + queries)`, the quarter turns of each class `(B, W)`
            and the ways of each episode `(B,)`.
        """
        table, most = self._table, shape.ways[1]
        group = (noise.take() * len(table.sizes)).astype("int64")
        sizes = table.sizes[group]
        drawn = draw_distinct(
            noise.take(self._class_width(most)),
            sizes * self._turns,
            most,
            self._least_classes,
        )
        turns, place = np.divmod(drawn, sizes[:, None])
        chosen = table.members[group[:, None], place]
        per_class = shape.shots[1] + shape.queries[1]
        of_class = draw_distinct(
            noise.take(most, self._row_width(per_class)),
            table.counts[chosen],
            per_class,
            int(table.counts.min()),
        )
        rows = table.rows[chosen[..., None], of_class]
        return rows, turns, draw_from(shape.ways, noise.take())

    def _shots_of(self, noise: NoiseColumns, shape: _Shape) -> np.ndarray:
        """Returns the number of shots of each class `(B, W)`."""
        drawn = draw_from(shape.shots, noise.take(shape.ways[1]))
        if not self.uneven:
            drawn = np.broadcast_to(drawn[:, :1], drawn.shape)
        return drawn

    def _in_random_order(
        self,
        noise: NoiseColumns,
        rows: np.ndarray,
        counts: np.ndarray,
        ways: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shuffles rows of all classes, those that are not there last.

        Args:
            noise: Noise to shuffle by.
            rows: Rows `(B, W, n)`.
            counts: How many of each class are there, `(B, W)`.
            ways: How many classes are there, `(B,)`.

        Returns:
            Rows, their classes in the episode and whether they are there, `(B, W n)`.
        """
        batch, most, per_class = rows.shape
        there = (np.arange(per_class) < counts[..., None]) & (
            np.arange(most)[:, None] < ways[:, None, None]
        )
        there = there.reshape(batch, -1)
        keys = np.where(there, 0.0, 2.0) + noise.take(most * per_class)
        order = np.argsort(keys, axis=-1)
        labels = order // per_class
        rows = np.take_along_axis(rows.reshape(batch, -1), order, axis=-1)
        return rows, labels, np.take_along_axis(there, order, axis=-1)

    def _gather(
        self, rows: np.ndarray, turns: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Returns rows of the data, turned as their class is."""
        flat = rows.reshape(-1)
        if self._turns == 1:
            gathered = np.asarray(self._x[flat])
        else:
            gathered = np.empty((len(flat), *self._x.shape[1:]), self._x.dtype)
            of_row = np.take_along_axis(turns, labels, axis=-1).reshape(-1)
            for turn in range(self._turns):
                chosen = np.flatnonzero(of_row == turn)
                images = np.asarray(self._x[flat[chosen]])
                gathered[chosen] = np.rot90(images, turn, axes=(1, 2))
        return gathered.reshape(*rows.shape, *gathered.shape[1:])

    def _labels(self, labels: np.ndarray, ways: int) -> np.ndarray:
        if self.labels_as == "index":
            return labels.astype("int32")
        return np.eye(ways, dtype="float32")[labels]

    def _class_width(self, ways: int) -> int:
        return distinct_width(self._least_classes, self._most_classes, ways)

    def _row_width(self, per_class: int) -> int:
        counts = self._table.counts
        return distinct_width(int(counts.min()), int(counts.max()), per_class)

    def _noise_width(self) -> int:
        """The noise of the largest episode: what others leave of it is not used."""
        ways, shots, queries = self.ways.high, self.shots.high, self.queries.high
        ends = range(1, ways + 1)
        classes = max(map(self._class_width, ends))
        per_class = max(map(self._row_width, range(1, shots + queries + 1)))
        return 3 + classes + ways * (per_class + 1 + shots + queries)

    def _check_sizes(self) -> None:
        table = self._table
        small = table.sizes * self._turns < self.ways.high
        if small.any():
            names = table.group_names[small][:5].tolist()
            where = f" in each group, but {names} have fewer" if len(small) > 1 else ""
            raise ValueError(
                f"`ways` must be at most the number of classes{where}. Received: "
                f"ways={self.ways.high}, {int(table.sizes.min()) * self._turns} classes"
            )
        needed = self.shots.high + self.queries.high
        few = table.counts < needed
        if few.any():
            raise ValueError(
                f"Every class must have {needed} rows, for shots and queries. "
                f"Received: {int(table.counts.min())} rows of class "
                f"{table.classes[few][0].item()!r}; {int(few.sum())} classes have fewer"
            )
