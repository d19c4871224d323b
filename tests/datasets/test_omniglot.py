import contextlib
import itertools
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from keras_mtl.data import Episodes
from keras_mtl.datasets import load_omniglot
from keras_mtl.datasets.omniglot import CACHED, shrink

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data(prepared_directory):
    return load_omniglot(prepared_directory)


@pytest.fixture(scope="module")
def prepared(prepared_directory):
    """The arrays of the prepared file."""
    with np.load(Path(prepared_directory) / "omniglot_28_bits.npz") as file:
        return {name: file[name] for name in file}


def classes_of(split):
    return {name: list(getattr(split, name).classes) for name in split.names}


def test_images(data, prepared):
    assert data.images.shape == (32460, 28, 28) and data.images.dtype == np.uint8
    assert set(np.unique(data.images)) == {0, 1}
    assert 0.05 < data.images.mean() < 0.15  # ink is what there is less of
    expected = np.unpackbits(prepared["images"], axis=2, count=28)
    np.testing.assert_array_equal(data.images, expected)


def test_labels(data):
    for rows in (data.labels, data.alphabets, data.drawers):
        assert rows.shape == (32460,) and rows.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(data.labels), np.full(1623, 20))
    assert set(data.alphabets) == set(range(50))
    pairs = set(zip(data.labels, data.alphabets, strict=True))
    assert len(pairs) == 1623  # a character has one alphabet
    drawn = set(zip(data.labels, data.drawers, strict=True))
    assert len(drawn) == 32460 and set(data.drawers) == set(range(1, 21))


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ("vinyals", {"train": 1028, "validation": 172, "test": 423}),
        ("lake", {"train": 964, "test": 659}),
        ("random", {"train": 1100, "validation": 100, "test": 423}),
    ],
)
def test_every_character_is_in_one_part(split, sizes, prepared_directory):
    classes = classes_of(load_omniglot(prepared_directory, split=split).classes)
    assert {name: len(part) for name, part in classes.items()} == sizes
    assert sorted(itertools.chain(*classes.values())) == list(range(1623))


def test_vinyals_parts_are_those_of_the_file(data, prepared):
    for number, name in enumerate(PARTS):
        expected = np.flatnonzero(prepared["char_vinyals_split"] == number)
        assert list(getattr(data.classes, name).classes) == expected.tolist()


def test_lake_parts_are_whole_alphabets(prepared_directory, prepared):
    data = load_omniglot(prepared_directory, split="lake")
    parts = [data.classes.train.classes, data.classes.test.classes]
    alphabets = [set(data.alphabets[np.isin(data.labels, part)]) for part in parts]
    assert [len(part) for part in alphabets] == [30, 20]
    assert not alphabets[0] & alphabets[1]
    expected = np.flatnonzero(prepared["char_is_background"]).tolist()
    assert list(parts[0]) == expected


def test_the_random_split_is_that_of_the_seed(prepared_directory):
    zero, again, one = (
        classes_of(load_omniglot(prepared_directory, split="random", seed=seed).classes)
        for seed in (0, 0, 1)
    )
    assert zero == again
    assert zero["test"] != one["test"]


def test_the_other_splits_know_no_seed(prepared_directory, data):
    other = load_omniglot(prepared_directory, seed=1)
    assert classes_of(other.classes) == classes_of(data.classes)


def test_episodes_draw_from_a_part(data):
    episodes = Episodes(
        data.images,
        data.labels,
        data.classes.test,
        episodes_per_batch=2,
        num_batches=1,
        rotations=True,
    )
    inputs, _ = episodes[0]
    assert inputs["support_x"].shape == (2, 5, 28, 28)


def test_a_pixel_is_the_mean_of_its_area():
    generator = np.random.default_rng(0)
    images = generator.choice(np.array([0, 255], "uint8"), (3, 105, 105))
    # In quarters of a pixel an area has whole sides: 105 / 28 = 15 / 4.
    fine = np.repeat(np.repeat(images, 4, axis=1), 4, axis=2)
    areas = fine.reshape(3, 28, 15, 28, 15).mean(axis=(2, 4))
    colours = np.repeat(images[..., None], 3, axis=-1)
    expected = 1 - areas / 255 >= 0.3
    clear = abs(1 - areas / 255 - 0.3) > 1e-4
    small = shrink(colours)
    assert small.shape == (3, 28, 28) and small.dtype == np.uint8
    np.testing.assert_array_equal(small[clear], expected[clear])
    assert clear.mean() > 0.99


def test_ink_is_black():
    paper = np.full((1, 105, 105, 3), 255, "uint8")
    assert not shrink(paper).any()
    assert shrink(np.zeros_like(paper)).all()


@pytest.mark.parametrize("offset", np.arange(50, 54))
def test_thin_strokes_do_not_vanish(offset):
    paper = np.full((1, 105, 105, 1), 255, "uint8")
    paper[:, :, offset : offset + 3] = 0
    columns = shrink(paper)[0].any(axis=0)
    assert shrink(paper)[0][:, columns].all() and 1 <= columns.sum() <= 2


def test_images_of_the_size_stay():
    generator = np.random.default_rng(0)
    ink = generator.integers(0, 2, (5, 28, 28)).astype("uint8")
    np.testing.assert_array_equal(shrink(255 * (1 - ink[..., None])), ink)


# Images of TFDS. They are 28x28 already here, which the loader leaves as they are.


def tfds_rows(background, alphabet, number, label, images):
    """The splits of TFDS, each shuffled, as dicts of rows."""
    rows = {
        "image": 255 * (1 - images[..., None]),
        "alphabet": alphabet.astype("int64"),
        "alphabet_char_id": number.astype("int64"),
        "label": label.astype("int64"),
    }
    order = np.random.default_rng(0).permutation(len(label))
    parts = {"train": order[background[order]], "test": order[~background[order]]}
    return {
        name: {key: values[chosen] for key, values in rows.items()}
        for name, chosen in parts.items()
    }


def invented_rows():
    """As many alphabets, characters and images as in Omniglot, of other sizes."""
    sizes = np.array([33] * 4 + [32] * 26 + [33] * 19 + [32])
    # Alphabets are in the order of their names, whichever part they are in.
    names = np.random.default_rng(1).permutation(50)
    of_character = np.repeat(np.arange(50), sizes)
    starts = np.cumsum(sizes) - sizes
    character = np.repeat(np.arange(1623), 20)
    alphabet = of_character[character]
    images = np.zeros((32460, 28, 28), "uint8")
    images[:, 0, :11] = character[:, None] >> np.arange(11) & 1
    return tfds_rows(
        alphabet < 30, names[alphabet], character - starts[alphabet], character, images
    )


def real_rows(prepared):
    """The prepared file in the format of TFDS."""
    character, alphabet = prepared["character"], prepared["alphabet"]
    rank = np.argsort(np.argsort(prepared["alphabet_names"]))
    return tfds_rows(
        prepared["char_is_background"][character],
        rank[alphabet],
        prepared["char_in_alphabet"][character] - 1,
        prepared["char_official_id"][character].astype("int64") - 1,
        np.unpackbits(prepared["images"], axis=2, count=28),
    )


def batches(rows, size):
    for start in range(0, len(rows["label"]), size):
        yield {key: values[start : start + size] for key, values in rows.items()}


@pytest.fixture(params=["stand_in", "mock_data"])
def with_tfds(request, monkeypatch):
    """Makes TFDS have the rows it is given."""
    if request.param == "stand_in":

        @contextlib.contextmanager
        def context(parts):
            def load(name, split, batch_size, download):
                assert (name, download) == ("omniglot", False)
                return [batches(parts[part], batch_size) for part in split]

            module = types.SimpleNamespace(load=load, as_numpy=lambda data: data)
            monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
            yield

        return context
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")

    def context(parts):
        def as_dataset(self, split, **kwargs):
            return tf.data.Dataset.from_tensor_slices(parts[str(split)])

        return tfds.testing.mock_data(as_dataset_fn=as_dataset)

    return context


def test_tfds_gives_what_the_prepared_file_gives(with_tfds, prepared, data, tmp_path):
    with with_tfds(real_rows(prepared)):
        read = load_omniglot(tmp_path)
    assert classes_of(read.classes) == classes_of(data.classes)
    np.testing.assert_array_equal(read.labels, data.labels)
    np.testing.assert_array_equal(read.alphabets, data.alphabets)
    assert read.drawers is None
    assert read.images.dtype == np.uint8

    def drawings(images):  # those of a character in an order of their own
        bits = np.packbits(images.reshape(1623, 20, -1), axis=2)
        return [sorted(row.tobytes() for row in drawn) for drawn in bits]

    assert drawings(read.images) == drawings(data.images)


def test_tfds_of_other_labels(with_tfds, tmp_path):
    with with_tfds(invented_rows()):
        read = load_omniglot(tmp_path, split="lake")
        random = load_omniglot(tmp_path, split="random")
        with pytest.raises(ValueError, match=r'split="lake".*prepared file.*Received'):
            load_omniglot(tmp_path)
    assert (len(read.classes.train), len(read.classes.test)) == (964, 659)
    assert len(random.classes.test) == 423
    assert set(read.alphabets[read.labels < 964]) == set(range(30))
    np.testing.assert_array_equal(read.labels, np.repeat(np.arange(1623), 20))
    # The images of a character stay with it.
    drawn = (read.images[:, 0, :11].astype(int) << np.arange(11)).sum(axis=1)
    assert (drawn.reshape(1623, 20) == drawn[::20, None]).all()
    assert len(set(drawn)) == 1623


def test_images_of_tfds_are_kept(with_tfds, tmp_path, monkeypatch):
    with with_tfds(invented_rows()):
        first = load_omniglot(tmp_path, split="lake")
    assert [path.name for path in tmp_path.iterdir()] == [CACHED]
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    again = load_omniglot(tmp_path, split="lake")
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert again.drawers is None


def test_nothing_is_kept_where_no_directory_is_named(with_tfds, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_MTL_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with with_tfds(invented_rows()):
        load_omniglot(split="lake")
    assert not list(tmp_path.rglob("*.npz*"))


def test_a_directory_that_cannot_be_written(with_tfds, tmp_path):
    (tmp_path / CACHED).mkdir()
    with (
        with_tfds(invented_rows()),
        pytest.warns(UserWarning, match="could not be kept"),
    ):
        read = load_omniglot(tmp_path, split="lake")
    assert len(read.labels) == 32460
    assert [path.name for path in tmp_path.iterdir()] == [CACHED]


def test_part_of_omniglot_is_refused(with_tfds, tmp_path):
    rows = invented_rows()
    rows["test"] = {key: values[1:] for key, values in rows["test"].items()}
    with (
        with_tfds(rows),
        pytest.raises(ValueError, match=r"1623 characters.*Received: .*32459 images"),
    ):
        load_omniglot(tmp_path)
    assert not list(tmp_path.iterdir())


def test_random_data_of_tfds_are_refused(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    with (
        tfds.testing.mock_data(num_examples=5),
        pytest.raises(ValueError, match=r"must have 1623 characters.*Received"),
    ):
        load_omniglot(tmp_path)


def test_without_data_it_says_what_to_do(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    if tfds.builder("omniglot").data_path.exists():
        pytest.skip("TFDS has Omniglot here")
    with pytest.raises(
        FileNotFoundError, match=r"omniglot_28_bits\.npz.*`data_dir`.*Received"
    ):
        load_omniglot(tmp_path)


def test_without_tfds(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        ImportError, match=r"omniglot_28_bits\.npz.*keras_mtl\[datasets.*Received"
    ):
        load_omniglot(tmp_path)


def test_nothing_is_fetched_unasked(tmp_path, monkeypatch):
    asked = []

    def load(*args, **kwargs):
        asked.append(kwargs["download"])
        raise AssertionError("no data")

    module = types.SimpleNamespace(load=load, as_numpy=lambda data: data)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    for arguments in ({}, {"download": True}):
        with pytest.raises(FileNotFoundError, match=r"download=True.*Received"):
            load_omniglot(tmp_path, **arguments)
    assert asked == [False, True]


def test_a_changed_file_is_refused(tmp_path):
    (tmp_path / "omniglot_28_bits.npz").write_bytes(b"no data")
    with pytest.raises(ValueError, match=r"must have the sha256.*Received"):
        load_omniglot(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "mini"}, "`split` must be one of.*Received: split='mini'"),
        ({"seed": -1}, "`seed` must be.*Received: seed=-1"),
        ({"seed": 0.5}, "`seed` must be.*Received: seed=0.5"),
    ],
)
def test_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_omniglot(tmp_path, **arguments)
