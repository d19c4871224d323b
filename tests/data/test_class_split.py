import numpy as np
import pytest

from keras_mtl.data import ClassSplit


def test_parts_are_attributes_that_know_their_split():
    split = ClassSplit(train=np.arange(3), test=[4, 5])
    assert split.train.classes == (0, 1, 2)
    assert split.test.name == "test"
    assert split.test.split is split
    assert len(split.test) == 2


@pytest.mark.parametrize("fractions", [{"train": 0.7, "validation": 0.1, "test": 0.2}])
def test_random_parts_hold_all_classes_once(fractions):
    labels = np.repeat(np.arange(100, 150), 3)
    split = ClassSplit.random(labels, seed=1, **fractions)
    parts = [getattr(split, name).classes for name in fractions]
    assert list(map(len, parts)) == [35, 5, 10]
    assert sorted(sum(parts, ())) == list(range(100, 150))
    again = ClassSplit.random(labels, seed=1, **fractions)
    assert again.test.classes == split.test.classes
    other = ClassSplit.random(labels, seed=2, **fractions)
    assert other.test.classes != split.test.classes


def test_groups_stay_together():
    labels = np.repeat(np.arange(12), 5)
    groups = labels // 3
    split = ClassSplit.random(labels, groups=groups, train=0.5, test=0.5)
    for part in (split.train, split.test):
        found, counts = np.unique(np.array(part.classes) // 3, return_counts=True)
        assert len(found) == 2
        assert (counts == 3).all()


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: ClassSplit(), "must have one part or more"),
        (lambda: ClassSplit(train=[]), "must have a class or more. Received: train"),
        (lambda: ClassSplit(train=[1, 1]), r"Received: train with \[1\] twice"),
        (
            lambda: ClassSplit(train=[1, 2], test=[2, 3]),
            r"no class in common. Received: test and train with \[2\]",
        ),
        (
            lambda: ClassSplit.random(np.arange(9), train=0.5, test=0.4),
            "must sum to one",
        ),
        (
            lambda: ClassSplit.random(np.arange(2), train=0.9, test=0.1),
            "must have a class or more. Received: test",
        ),
    ],
)
def test_refuses(make, match):
    with pytest.raises(ValueError, match=match):
        make()
