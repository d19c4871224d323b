"""Sharing trees: what is one, how many there are, what they say."""

import pytest

from keras_mtl.tuning import SharingTree, all_trees

BELL = [1, 2, 5, 15, 52]


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 5])
def test_trees_of_one_block_are_the_partitions(tasks):
    found = list(all_trees("abcde"[:tasks], 1))
    assert len(found) == len(set(found)) == BELL[tasks - 1]


def test_trees_of_more_blocks_refine():
    found = set(all_trees("abc", 2))
    assert len(found) == 12  # 1 x 5 + 3 x 2 + 1 x 1
    assert SharingTree([["abc"], ["ac", "b"]]) in found
    for tree in found:
        for upper, lower in zip(tree.levels[1:], tree.levels, strict=False):
            assert all(any(set(g) <= set(h) for h in lower) for g in upper)


def test_order_of_names_is_no_part_of_a_tree():
    one = SharingTree([[("a", "b", "c")], [("c", "a"), ("b",)]])
    two = SharingTree([[("c", "b", "a")], [("b",), ("a", "c")]])
    assert one == two and hash(one) == hash(two)
    assert one != SharingTree([[("a", "b", "c")], [("a", "b"), ("c",)]])
    assert one.levels[1] == (("a", "c"), ("b",))


def test_what_a_tree_says():
    tree = SharingTree([["abc"], ["ac", "b"], ["a", "b", "c"]])
    assert tree.tasks == ("a", "b", "c")
    assert tree.copies == 1 + 2 + 3
    assert tree.group_of("c", 1) == ("a", "c")
    assert [tree.shared_blocks("a", t) for t in "abc"] == [3, 1, 2]
    assert str(tree).splitlines()[1] == "block 1: a + c | b"
    assert SharingTree.from_dict(tree.to_dict()) == tree
    with pytest.raises(ValueError, match="must be one of"):
        tree.group_of("d", 0)


def test_ends_of_sharing():
    assert SharingTree.shared("ab", 2).copies == 2
    assert SharingTree.independent("ab", 2).copies == 4
    grouped = SharingTree.grouped(["ab", "c"], 3, shared_blocks=1)
    assert [len(groups) for groups in grouped.levels] == [1, 2, 2]


@pytest.mark.parametrize(
    "levels, said",
    [
        ([], "one block or more"),
        ([["ab"], ["a"]], "each task once"),
        ([["ab", "b"]], "each task once"),
        ([["a", "b"], ["ab"]], "have parted"),
    ],
)
def test_no_trees(levels, said):
    with pytest.raises(ValueError, match=said):
        SharingTree(levels)


def test_a_picture_names_tasks_and_blocks(tmp_path):
    pytest.importorskip("matplotlib")
    tree = SharingTree([[("a", "b", "c")], [("a", "c"), ("b",)]])
    axis = tree.plot(tmp_path / "tree.png")
    assert (tmp_path / "tree.png").stat().st_size > 1000
    assert {text.get_text() for text in axis.texts} == {"input", "a", "b", "c"}
    places = {text.get_text(): text.get_position() for text in axis.texts}
    # The tasks of a group are side by side.
    assert abs(places["a"][0] - places["c"][0]) == 1
    assert len(axis.get_yticks()) == 2
