import keras
import numpy as np
import pytest

from keras_mtl.data import ClassSplit, Episodes

CLASSES, PER_CLASS = 30, 12
LABELS = np.repeat(np.arange(CLASSES), PER_CLASS)
# A row says its class and its place in the class.
ROWS = np.stack([LABELS, np.tile(np.arange(PER_CLASS), CLASSES)], axis=1)


def episodes(**arguments):
    defaults = {"ways": 4, "shots": 2, "queries": 3, "episodes_per_batch": 8}
    return Episodes(ROWS, LABELS, **{**defaults, **arguments})


def leaves(batch):
    return keras.tree.flatten(batch)


def test_shapes_and_dtypes():
    inputs, y = episodes()[0]
    assert inputs["support_x"].shape == (8, 8, 2)
    assert inputs["support_y"].shape == (8, 8, 4)
    assert inputs["support_mask"].shape == (8, 8)
    assert inputs["query_x"].shape == (8, 12, 2)
    assert y.shape == (8, 12, 4)
    assert inputs["support_x"].dtype == ROWS.dtype
    assert y.dtype == "float32"
    inputs, y = episodes(labels_as="index")[0]
    assert (y.shape, y.dtype) == ((8, 12), "int32")
    assert inputs["support_y"].shape == (8, 8)


def test_an_episode_is_a_task():
    inputs, y = episodes(labels_as="index")[3]
    assert inputs["support_mask"].all()
    for sx, sy, qx, qy in zip(
        inputs["support_x"], inputs["support_y"], inputs["query_x"], y, strict=True
    ):
        np.testing.assert_array_equal(np.bincount(sy), [2] * 4)
        np.testing.assert_array_equal(np.bincount(qy), [3] * 4)
        every = np.concatenate([sx, qx])
        assert len(np.unique(every, axis=0)) == len(every)  # no query in the support
        for label in range(4):
            classes = {*sx[sy == label][:, 0], *qx[qy == label][:, 0]}
            assert len(classes) == 1
        assert len({*sx[:, 0]}) == 4


def test_labels_are_dealt_anew_and_orders_are_random():
    """No class, and no place in the support, tells the label."""
    data = episodes(labels_as="index", episodes_per_batch=3000)
    inputs, y = data[0]
    first = inputs["support_x"][..., 0] == 7
    labels = inputs["support_y"][first]
    assert np.abs(np.bincount(labels) / len(labels) - 0.25).max() < 0.06
    for place in range(8):
        share = np.bincount(inputs["support_y"][:, place]) / 3000
        assert np.abs(share - 0.25).max() < 0.04
    share = np.bincount(y[:, 0]) / 3000
    assert np.abs(share - 0.25).max() < 0.04


def test_classes_and_rows_are_drawn_evenly():
    inputs, _ = episodes(episodes_per_batch=6000)[0]
    drawn = np.concatenate([inputs["support_x"], inputs["query_x"]], axis=1)
    counts = np.bincount(drawn[..., 0].ravel(), minlength=CLASSES)
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.12)
    counts = np.bincount(drawn[..., 1].ravel(), minlength=PER_CLASS)
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.03)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"shots": (1, 5), "ways": (2, 6)}, {"uneven": True, "shots": (1, 4)}],
)
def test_a_batch_is_a_function_of_the_seed_and_its_index(arguments):
    data, again = episodes(**arguments), episodes(**arguments)
    in_order = [data[i] for i in range(4)]
    for index in (2, 0, 3):
        for a, b in zip(leaves(again[index]), leaves(in_order[index]), strict=True):
            np.testing.assert_array_equal(a, b)
    other = episodes(seed=1, **arguments)[0]
    assert any(
        a.shape != b.shape or (a != b).any()
        for a, b in zip(leaves(other), leaves(in_order[0]), strict=True)
    )


def test_an_episode_is_the_same_in_whatever_batch_it_is():
    large, small = episodes(episodes_per_batch=8)[0], episodes(episodes_per_batch=2)[3]
    for a, b in zip(leaves(large), leaves(small), strict=True):
        np.testing.assert_array_equal(a[6:], b)


def test_ranges_are_padded_masked_and_drawn_evenly():
    data = episodes(
        ways=(2, 5), shots=(1, 6), queries=(1, 4), labels_as="index", shapes=2
    )
    shapes, ways, shots = set(), [], []
    for index in range(400):
        inputs, y, weights = data[index]
        shapes.add((inputs["support_x"].shape, y.shape))
        mask = inputs["support_mask"]
        assert (np.diff(mask.astype(int), axis=1) <= 0).all()  # padding comes last
        for label, there in zip(inputs["support_y"], mask, strict=True):
            counts = np.bincount(label[there])
            assert len(set(counts)) == 1
            ways.append(len(counts))
            shots.append(counts[0])
        for label, weight, of_ways in zip(y, weights, ways[-8:], strict=True):
            counts = np.bincount(label[weight > 0])
            assert len(counts) == of_ways
            assert 1 <= counts[0] <= 4
    assert len(shapes) <= 8
    for found, low, high in ((ways, 2, 5), (shots, 1, 6)):
        share = np.bincount(found, minlength=high + 1)[low:] / len(found)
        np.testing.assert_allclose(share, 1 / (high - low + 1), atol=0.05)


def test_uneven_supports():
    inputs, _ = episodes(uneven=True, shots=(1, 5), shapes=1, labels_as="index")[0]
    counts = np.array(
        [
            np.bincount(label[there], minlength=4)
            for label, there in zip(
                inputs["support_y"], inputs["support_mask"], strict=True
            )
        ]
    )
    assert counts.min() >= 1
    assert (counts.max(axis=1) > counts.min(axis=1)).mean() > 0.5


def test_a_class_turned_is_a_class_of_its_own():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, size=(8, 5, 5, 1), dtype="uint8")
    labels = np.repeat([3, 5], 4)
    data = Episodes(
        images,
        labels,
        ways=8,
        shots=1,
        queries=3,
        rotations=True,
        labels_as="index",
    )
    inputs, y = data[0]
    seen = set()
    for image, label in zip(
        inputs["support_x"][0], inputs["support_y"][0], strict=True
    ):
        (turn, row) = next(
            (t, i)
            for t in range(4)
            for i in range(8)
            if (np.rot90(images[i], t) == image).all()
        )
        seen.add((turn, labels[row]))
        for query in inputs["query_x"][0][y[0] == label]:
            others = images[labels == labels[row]]
            assert any((np.rot90(other, turn) == query).all() for other in others)
    assert len(seen) == 8
    assert inputs["support_x"].dtype == "uint8"


def test_classes_of_an_episode_are_of_one_group():
    groups = LABELS // 5
    inputs, _ = episodes(groups=groups, episodes_per_batch=600)[0]
    found = inputs["support_x"][..., 0] // 5
    assert (found == found[:, :1]).all()
    share = np.bincount(found[:, 0]) / 600
    np.testing.assert_allclose(share, 1 / 6, atol=0.06)


def test_parts_of_a_split_do_not_leak():
    split = ClassSplit(train=range(20), test=range(20, 30))
    train, test = (episodes(classes=part) for part in (split.train, split.test))
    train.check_disjoint(test)
    for data, part in ((train, split.train), (test, split.test)):
        inputs, _ = data[0]
        drawn = np.concatenate([inputs["support_x"], inputs["query_x"]], axis=1)
        assert set(drawn[..., 0].ravel()) <= set(part.classes)
    with pytest.raises(ValueError, match=r"no class in common. Received: classes \[0"):
        train.check_disjoint(episodes())


def test_data_on_disk_stay_there(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    data = Episodes(rows, LABELS, ways=4, shots=2, queries=3, episodes_per_batch=8)
    for a, b in zip(leaves(data[1]), leaves(episodes()[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fit_takes_them():
    """As many as `steps_per_epoch` says, going on from epoch to epoch."""
    seen = []

    class Recorder(Episodes):
        def __getitem__(self, index):
            seen.append(index)
            inputs, y = super().__getitem__(index)
            return inputs["query_x"][:, 0, :1].astype("float32"), y[:, 0]

    data = Recorder(ROWS, LABELS, ways=3, shots=1, queries=2)
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    model.fit(data, steps_per_epoch=3, epochs=2, verbose=0, shuffle=False)
    assert set(range(6)) <= set(seen)
    test = Recorder(ROWS, LABELS, ways=3, shots=1, queries=2, num_batches=2)
    assert np.isfinite(model.evaluate(test, verbose=0))


@pytest.mark.parametrize(
    "arguments, match",
    [
        (
            {"ways": 31},
            "`ways` must be at most the number of classes. Received: ways=31",
        ),
        (
            {"ways": 6, "groups": LABELS // 5},
            "classes in each group, but .* have fewer. Received: ways=6, 5 classes",
        ),
        (
            {"queries": 11},
            "must have 13 rows, for shots and queries. Received: 12 rows",
        ),
        ({"ways": 0}, "`ways` must be a whole number of at least 1"),
        ({"shots": (3, 1)}, "`shots` must have its least number first"),
        ({"shots": (1, 2, 3)}, "`shots` must be an integer, or a pair"),
        ({"classes": [1, 99]}, r"must be classes of `labels`. Received: \[99\]"),
        ({"groups": np.arange(len(LABELS))}, "must be in one group"),
        ({"groups": [1]}, "`groups` must have the group of each row"),
        ({"rotations": True}, "must be square images"),
        ({"labels_as": "names"}, "`labels_as` must be one of"),
        ({"num_batches": 0}, "`num_batches` must be a whole number"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        episodes(**arguments)


def test_refuses_labels_of_another_length():
    with pytest.raises(ValueError, match=r"as many rows\. Received: 360 and 5"):
        Episodes(ROWS, np.arange(5))
