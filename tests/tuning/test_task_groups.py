"""Groups of tasks: against all partitions, and for more tasks against planted ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mtl.analysis.partitions import partitions
from keras_mtl.analysis.task_groups import gain
from keras_mtl.tuning import group_tasks, rank_trees
from keras_mtl.tuning.sharing_tree import SharingTree, all_trees
from keras_mtl.tuning.tree_ranking import _number_of_trees


def planted(groups, noise=0.0, seed=0):
    """Affinities of 1 within groups and -1 across."""
    size = sum(groups)
    group = np.repeat(np.arange(len(groups)), groups)
    signs = np.where(group[:, None] == group[None], 1.0, -1.0)
    return signs + noise * np.random.default_rng(seed).normal(size=(size, size))


def as_sets(groups):
    return {frozenset(group) for group in groups}


@given(
    st.lists(st.floats(-1, 1), min_size=16, max_size=16),
    st.integers(1, 4),
)
def test_no_partition_is_better(numbers, max_groups):
    affinity = np.reshape(numbers, (4, 4))
    np.fill_diagonal(affinity, 0)
    found = group_tasks(affinity, max_groups, list("abcd"))
    assert len(found) <= max_groups
    places = [["abcd".index(t) for t in group] for group in found]
    best = max(gain(affinity, p) for p in partitions(range(4)) if len(p) <= max_groups)
    assert gain(affinity, places) == pytest.approx(best, abs=1e-9)


def test_the_gain_is_a_mean_over_the_others():
    affinity = np.array([[9, 0.3, -0.2], [0.2, 9, -0.1], [-0.3, 0.1, 9.0]])
    assert group_tasks(affinity, 2, ["a", "b", "c"]) == [["a", "b"], ["c"]]
    assert group_tasks(affinity, 1) == [["0", "1", "2"]]
    np.fill_diagonal(affinity, 0)
    # Each of three tasks has two others: a sum of six numbers, halved.
    assert gain(affinity, [[0, 1, 2]]) == pytest.approx(affinity.sum() / 2)


@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_of_twelve_tasks_are_found(seed):
    names = [f"t{i:02}" for i in range(12)]
    order = np.random.default_rng(seed).permutation(12)
    affinity = planted([5, 4, 3], noise=0.3, seed=seed)[np.ix_(order, order)]
    found = group_tasks(affinity, 3, names)
    expected = [
        [t for t, o in zip(names, order, strict=True) if o in range(*ends)]
        for ends in ((0, 5), (5, 9), (9, 12))
    ]
    assert as_sets(found) == as_sets(expected)


@pytest.mark.parametrize(
    "affinity", [[[0, 1, 2]], [1.0], [[0, np.nan], [0, 0]], [[0, np.inf], [0, 0]]]
)
def test_affinities_are_square_and_finite(affinity):
    with pytest.raises(ValueError, match="`affinity` must be"):
        group_tasks(affinity, 2)


def test_names_are_as_many_as_tasks():
    with pytest.raises(ValueError, match="2 names"):
        group_tasks(np.zeros((2, 2)), 2, ["a"])


@pytest.mark.parametrize("units, blocks", [(1, 3), (3, 1), (3, 2), (4, 2), (5, 3)])
def test_the_number_of_trees(units, blocks):
    found = sum(1 for _ in all_trees("abcde"[:units], blocks))
    assert _number_of_trees(units, blocks) == found


def test_the_planted_tree_is_ranked_first():
    tasks = list("abcd")
    trees = rank_trees(planted([2, 2]), tasks, tasks, blocks=3)
    assert trees[0] == SharingTree.grouped(["ab", "cd"], 3)
    assert len(trees) == len(set(trees)) == 16
    everything = rank_trees(planted([2, 2]), tasks, tasks, 2, num_trees=None)
    assert set(everything) == set(all_trees(tasks, 2))


def test_of_equal_promise_the_smaller_network_comes_first():
    tasks = list("abc")
    trees = rank_trees(np.zeros((3, 3)), tasks, tasks, blocks=2)
    assert [tree.copies for tree in trees] == sorted(tree.copies for tree in trees)


@pytest.mark.parametrize("count", [7, 12])
def test_many_tasks_are_ranked_by_where_they_part(count):
    tasks = [f"t{i:02}" for i in range(count)]
    sizes = [3, count - 3]
    trees = rank_trees(planted(sizes), tasks, tasks, blocks=3, num_trees=5)
    assert trees[0] == SharingTree.grouped([tasks[:3], tasks[3:]], 3)


def test_tasks_that_stay_together_are_ranked_as_one():
    tasks = list("abcd")
    trees = rank_trees(
        planted([2, 2]), ["a", ("b", "c"), "d"], tasks, blocks=1, num_trees=None
    )
    assert len(trees) == 5
    assert all(tree.shared_blocks("b", "c") == 1 for tree in trees)


def test_the_matrix_is_that_of_the_tasks():
    with pytest.raises(ValueError, match="2 by 2"):
        rank_trees(np.zeros((3, 3)), ["a", "b"], ["a", "b"], 1)
