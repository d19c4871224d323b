"""Trees as hyperparameters: each of one setting, and each setting of a tree."""

import keras_tuner
import pytest
from settings import having, settings

from keras_mtl.tuning import SharingTree, all_trees, choose_tree
from keras_mtl.tuning.tree_choices import declare_tree, values_of_tree


@pytest.mark.parametrize("tasks, blocks", [(1, 2), (2, 3), (3, 2), (4, 1), (4, 2)])
def test_settings_and_trees_are_as_many_and_each_other(tasks, blocks):
    names = list("abcd"[:tasks])
    space = keras_tuner.HyperParameters()
    declare_tree(space, names, blocks)
    found = {}
    for values in settings(space.space):
        hp = having(values)
        tree = choose_tree(hp, names, blocks)
        assert hp.values == values, "nothing else is asked for"
        assert tree not in found, "of one setting alone"
        assert values_of_tree(tree, names) == values
        found[tree] = values
    assert set(found) == set(all_trees(names, blocks))


def test_the_default_is_hard_sharing():
    tree = choose_tree(keras_tuner.HyperParameters(), ["a", "b", "c"], 2)
    assert tree == SharingTree.shared("abc", 2)


def test_names_that_stay_together_count_as_one():
    units = ["a", ("b", "c")]
    space = keras_tuner.HyperParameters()
    declare_tree(space, units, 2)
    found = {choose_tree(having(v), units, 2) for v in settings(space.space)}
    assert found == {
        SharingTree([["abc"], ["abc"]]),
        SharingTree([["abc"], ["a", "bc"]]),
        SharingTree([["a", "bc"], ["a", "bc"]]),
    }
    with pytest.raises(ValueError, match="must stay together"):
        values_of_tree(SharingTree.independent("abc", 2), units)


def test_eight_tasks_are_declared_and_nine_are_too_many():
    space = keras_tuner.HyperParameters()
    declare_tree(space, list("abcdefgh"), 3)
    assert len(space.space) < 400
    with pytest.raises(ValueError, match="8 tasks at most"):
        declare_tree(space, list("abcdefghi"), 3)


@pytest.mark.parametrize("tasks", ["ab", [], ["a", "a"], ["a", ("b", "a")]])
def test_names_are_a_list_each_once(tasks):
    with pytest.raises(ValueError, match="each once"):
        choose_tree(keras_tuner.HyperParameters(), tasks, 1)
