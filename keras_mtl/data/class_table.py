"""Which rows of the data belong to which class."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class ClassTable:
    """Rows by class, and classes by group.

    Args:
        labels: Labels `(n,)`.
        classes: The classes to draw from; `None` for all that the labels have.
        groups: Group of each row `(n,)`, or `None`.

    Attributes:
        classes: Array `(C,)`.
        rows: Integers `(C, most)`, the rows of each class, padded with the first.
        counts: Integers `(C,)`, how many rows each class has.
        members: Integers `(G, most)`, the places of the classes of each group, padded.
        sizes: Integers `(G,)`, how many classes each group has. Without groups there
            is one.

    Raises:
        ValueError: If labels are no vector, if a class has no row, or if one is in two
            groups.
    """

    def __init__(
        self, labels: Any, classes: Sequence[Any] | None, groups: Any = None
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1:
            raise ValueError(
                "`labels` must be a vector, with the class of each row. "
                f"Received: labels of shape {labels.shape}"
            )
        known, place = np.unique(labels, return_inverse=True)
        self.classes = known if classes is None else np.asarray(classes)
        missing = self.classes[~np.isin(self.classes, known)]
        if len(missing):
            raise ValueError(
                "`classes` must be classes of `labels`. "
                f"Received: {missing[:5].tolist()}, which no row has"
            )
        order = np.argsort(place, kind="stable")
        by_class = np.split(order, np.cumsum(np.bincount(place))[:-1])
        of_known = np.searchsorted(known, self.classes)
        self.rows, self.counts = _padded([by_class[c] for c in of_known])
        group_of_class = np.zeros(len(self.classes), "int64")
        self.group_names = np.array([0])
        if groups is not None:
            group_of_class = self._group_of_class(groups, len(labels))
        by_group = [
            np.flatnonzero(group_of_class == g) for g in range(len(self.group_names))
        ]
        self.members, self.sizes = _padded(by_group)

    def _group_of_class(self, groups: Any, num_rows: int) -> np.ndarray:
        groups = np.asarray(groups)
        if groups.shape != (num_rows,):
            raise ValueError(
                f"`groups` must have the group of each row, shape {(num_rows,)}. "
                f"Received: groups of shape {groups.shape}"
            )
        first = groups[self.rows[:, 0]]
        inside = np.arange(self.rows.shape[1]) < self.counts[:, None]
        torn = ((groups[self.rows] != first[:, None]) & inside).any(axis=1)
        if torn.any():
            raise ValueError(
                "All rows of a class must be in one group. "
                f"Received: classes {self.classes[torn][:5].tolist()} in several"
            )
        self.group_names, places = np.unique(first, return_inverse=True)
        return places


def _padded(lists: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns lists as one array, padded with their first entries, and their sizes."""
    sizes = np.array([len(entries) for entries in lists])
    table = np.empty((len(lists), sizes.max()), "int64")
    for row, entries in zip(table, lists, strict=True):
        row[: len(entries)] = entries
        row[len(entries) :] = entries[0]
    return table, sizes
