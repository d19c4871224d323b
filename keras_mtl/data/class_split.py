"""Classes to meta-train on, and others to test on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mtl.argument_checks import check_count, check_number


@dataclass(frozen=True)
class ClassSubset:
    """Classes of one part of a split.

    Attributes:
        name: Name of the part.
        classes: The classes, values of the labels.
        split: The split that it is a part of.
    """

    name: str
    classes: tuple[Any, ...]
    split: "ClassSplit"

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.classes)


class ClassSplit:
    """Parts of the classes that have no class in common.

    Learning to learn is judged on classes that were never trained on. A split is
    checked when it is made, and `Episodes` that are given its parts cannot share a
    class.

    Args:
        **parts: By name of a part, such as `train` and `test`, a list of classes:
            values that the labels have. Each becomes an attribute.

    Raises:
        ValueError: If a class is in two parts, or twice in one, or a part is empty.

    Example:

    ```python
    split = keras_mtl.data.ClassSplit(train=[0, 1, 2, 3, 4, 5], test=[6, 7, 8, 9])
    assert len(split.train) == 6
    ```
    """

    def __init__(self, **parts: Sequence[Any]) -> None:
        if not parts:
            raise ValueError("A split must have one part or more. Received: none")
        owner = {}
        for name, classes in parts.items():
            classes = tuple(np.asarray(classes).tolist())
            if not classes:
                raise ValueError(
                    f"Every part must have a class or more. Received: {name}=[]"
                )
            if len(set(classes)) < len(classes):
                raise ValueError(
                    "A part must not hold a class twice. "
                    f"Received: {name} with {_doubles(classes)} twice"
                )
            shared = [c for c in classes if c in owner]
            if shared:
                raise ValueError(
                    "Parts of a split must have no class in common. "
                    f"Received: {name} and {owner[shared[0]]} with {shared[:5]}"
                )
            owner.update(dict.fromkeys(classes, name))
            setattr(self, name, ClassSubset(name, classes, self))
        self.names = tuple(parts)

    @classmethod
    def random(
        cls,
        labels: Any,
        groups: Any = None,
        seed: int = 0,
        **fractions: float,
    ) -> "ClassSplit":
        """Splits the classes of labels at random.

        Args:
            labels: Integer labels `(n,)`.
            groups: Group of each label `(n,)`, such as the alphabet of a character:
                the classes of a group then stay together. Defaults to `None`.
            seed: Non-negative integer. Defaults to 0.
            **fractions: By name of a part its share of the classes, or of the groups.
                They sum to one.

        Raises:
            ValueError: If shares do not sum to one, or a part gets no class.

        Example:

        ```python
        labels = np.repeat(np.arange(10), 20)
        split = keras_mtl.data.ClassSplit.random(labels, train=0.6, test=0.4)
        assert (len(split.train), len(split.test)) == (6, 4)
        ```
        """
        check_count("seed", seed, at_least=0)
        for name, share in fractions.items():
            check_number(name, share, above=0, at_most=1)
        if abs(sum(fractions.values()) - 1) > 1e-6:
            raise ValueError(
                f"The shares of all parts must sum to one. Received: {fractions}"
            )
        labels = np.asarray(labels)
        groups = labels if groups is None else np.asarray(groups)
        found = np.random.default_rng(seed).permutation(np.unique(groups))
        ends = np.round(np.cumsum(list(fractions.values())) * len(found)).astype(int)
        parts = {
            name: np.unique(labels[np.isin(groups, found[start:end])])
            for name, start, end in zip(fractions, [0, *ends], ends, strict=False)
        }
        return cls(**parts)


def _doubles(classes):
    values, counts = np.unique(np.asarray(classes), return_counts=True)
    return values[counts > 1][:5].tolist()
