"""Networks of sharing plans: what is a copy of what, and who reads whom."""

import keras
import keras_tuner
import numpy as np
import pytest
from settings import having, settings

from keras_mtl import layers
from keras_mtl.tuning import (
    BlockSharing,
    SharingPlan,
    SharingTree,
    choose_sharing,
    sharing_tree,
)
from keras_mtl.tuning.sharing_choices import declare_sharing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("float32")


def dense():
    return keras.layers.Dense(4, "tanh")


def build(tree, *links, tasks="abc", width=1.0):
    plan = SharingPlan(tree, links)
    heads = {task: keras.layers.Dense(1) for task in tasks}
    blocks = [dense] * len(tree.levels)
    return plan.build(keras.Input((5,)), blocks, heads, width)


def gradients_reach(model):
    """Whether every variable changes some output."""
    before = model.predict(X, verbose=0)
    for variable in model.trainable_variables:
        old = keras.ops.convert_to_numpy(variable)
        variable.assign(old + RNG.normal(size=old.shape))
        after = model.predict(X, verbose=0)
        variable.assign(old)
        if all(np.allclose(before[t], after[t], atol=1e-6) for t in before):
            return False
    return True


def test_a_tree_has_a_copy_for_each_group():
    tree = SharingTree([["abc"], ["ac", "b"]])
    model = build(tree)
    names = [layer.name for layer in model.layers if layer.name.startswith("block")]
    assert sorted(names) == ["block_0_a_b_c", "block_1_a_c", "block_1_b"]
    rows = {row.layer: row.tasks for row in model.sharing_summary(lambda line: None)}
    assert rows["block_1_a_c"] == ("a", "c")
    assert sharing_tree(model) == tree
    # Copies draw for themselves.
    kernels = [model.get_layer(f"block_1_{g}").get_weights()[0] for g in ("a_c", "b")]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_names_of_groups_do_not_collide():
    tree = SharingTree([[("a", "b"), ("a_b",)]])
    model = build(tree, tasks=("a", "b", "a_b"))
    names = [layer.name for layer in model.layers if layer.name.startswith("block")]
    assert sorted(names) == ["block_0_0_a_b", "block_0_1_a_b"]


def test_seeds_of_a_block_do_not_make_its_copies_alike():
    seeded = keras.initializers.GlorotUniform(seed=1)
    plan = SharingPlan(SharingTree.independent("ab", 1))
    heads = {task: keras.layers.Dense(1) for task in "ab"}
    block = keras.layers.Dense(4, kernel_initializer=seeded)
    model = plan.build(keras.Input((5,)), [block], heads)
    kernels = [model.get_layer(f"block_0_{t}").get_weights()[0] for t in "ab"]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


@pytest.mark.parametrize(
    "link, options, layer",
    [
        ("cross_stitch", {}, layers.CrossStitch),
        ("soft", {"weight": 0.01}, layers.SoftSharing),
        ("mixture_of_experts", {"experts": 3, "width": 0.5}, layers.MixtureOfExperts),
    ],
)
def test_links(link, options, layer):
    tree = SharingTree.grouped("abc", 3, shared_blocks=1)
    links = [BlockSharing(), BlockSharing(link, options), BlockSharing(link, options)]
    model = build(tree, *links)
    found = [each for each in model.layers if isinstance(each, layer)]
    assert len(found) == 2
    assert model.get_layer("block_0_a_b_c").units == 4
    if link == "mixture_of_experts":
        assert [e.units for e in found[0].experts.layers] == [2, 2, 2]
    if link == "soft":
        assert found[0].weight == 0.01 and found[0].penalty == "l2"
    assert sharing_tree(model) == tree
    assert gradients_reach(model)


def test_groups_may_be_linked():
    tree = SharingTree([["abc"], ["ac", "b"], ["a", "b", "c"]])
    stitch = BlockSharing("cross_stitch")
    model = build(tree, BlockSharing(), stitch, stitch)
    assert model.get_layer("block_1_stitch").task_names == ["a_c", "b"]
    assert model.get_layer("block_2_stitch").task_names == ["a", "b", "c"]


def test_one_group_has_nothing_to_be_linked_to():
    expected = build(SharingTree.shared("abc", 1)).count_params()
    linked = build(SharingTree.shared("abc", 1), BlockSharing("cross_stitch"))
    assert linked.count_params() == expected


def test_width():
    model = build(SharingTree.shared("abc", 1), width=2.5)
    assert model.get_layer("block_0_a_b_c").units == 10


def test_what_does_not_fit():
    tree = SharingTree.shared("abc", 2)
    with pytest.raises(ValueError, match="one for each of 2 blocks"):
        SharingPlan(tree, (BlockSharing(),))
    with pytest.raises(ValueError, match="`link` must be one of"):
        BlockSharing("experts")
    heads = {task: keras.layers.Dense(1) for task in "abc"}
    with pytest.raises(ValueError, match="`blocks` must be one for each of 2"):
        SharingPlan(tree).build(keras.Input((5,)), [dense], heads)
    with pytest.raises(ValueError, match="The keys of `heads`"):
        SharingPlan(tree).build(keras.Input((5,)), [dense] * 2, {"a": heads["a"]})
    with pytest.raises(ValueError, match="give a `stem`"):
        inputs = {"one": keras.Input((5,)), "two": keras.Input((5,))}
        SharingPlan(tree).build(inputs, [dense] * 2, heads)
    with pytest.raises(ValueError, match="A block must be"):
        SharingPlan(tree).build(keras.Input((5,)), [lambda: 3] * 2, heads)


def test_a_stem_makes_one_tensor_of_several_inputs():
    inputs = {name: keras.Input((2,), name=name) for name in ("one", "two")}
    model = SharingPlan(SharingTree.independent("ab", 1)).build(
        inputs,
        [dense],
        {task: keras.layers.Dense(1) for task in "ab"},
        stem=lambda x: keras.layers.Concatenate()(list(x.values())),
    )
    found = model.predict({"one": X[:, :2], "two": X[:, 2:4]}, verbose=0)
    assert found["b"].shape == (6, 1)


@pytest.mark.parametrize("sharing", [["hard"], ["branch"], "per_block", None])
@pytest.mark.parametrize("tasks", ["ab", "abc"])
def test_every_setting_is_an_architecture_of_its_own(sharing, tasks):
    space = keras_tuner.HyperParameters()
    declare_sharing(space, list(tasks), 2, sharing)
    whole = [
        entry
        for entry in space.space
        if not hasattr(entry, "sampling") or entry.name.endswith("shared_blocks")
    ]
    fixed = [e for e in whole if e.name.rpartition("/")[2] not in ("width", "gate")]
    found = set()
    for values in settings(fixed):
        hp = having(values)
        plan = choose_sharing(hp, list(tasks), 2, sharing)
        links = tuple(link.link for link in plan.links)
        assert (plan.tree, links) not in found
        found.add((plan.tree, links))
        known = set(values) | {"sharing"}
        extra = set(hp.values) - known
        assert all(
            n.rpartition("/")[2] in ("weight", "experts", "width", "gate")
            for n in extra
        )
    trees = {2: 3, 3: 12}[len(tasks)]
    if sharing == ["hard"]:
        assert len(found) == 1
    elif sharing == ["branch"]:
        assert len(found) == trees
    elif sharing is None:
        assert len(found) == trees + 3 * 2
    else:
        expected = sum(
            4 ** sum(len(groups) > 1 for groups in tree.levels)
            for tree in {tree for tree, _ in found}
        )
        assert len(found) == expected and len({t for t, _ in found}) == trees


def test_kinds_that_there_are_not():
    for sharing in (["branching"], [], "branch", ["hard", "hard"]):
        with pytest.raises(ValueError, match="`sharing` must be a list"):
            declare_sharing(having({}), ["a", "b"], 1, sharing)


def test_ranks_of_trees():
    trees = [SharingTree.independent("ab", 2), SharingTree.shared("ab", 2)]
    hp = having({"tree/rank": 2})
    assert choose_sharing(hp, ["a", "b"], 2, ["branch"], trees).tree == trees[1]
    assert choose_sharing(having({}), ["a", "b"], 2, None, trees).tree == trees[0]
    per_block = having({"tree/rank": 1, "block_1/link": "cross_stitch"})
    plan = choose_sharing(per_block, ["a", "b"], 2, "per_block", trees)
    assert [link.link for link in plan.links] == ["copies", "cross_stitch"]
