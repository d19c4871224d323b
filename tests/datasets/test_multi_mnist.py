import hashlib
from pathlib import Path

import numpy as np
import pytest

from keras_mtl.datasets import load_multi_mnist
from keras_mtl.datasets.multi_mnist import overlay

SPLITS = ("train", "validation", "test")
SIZES = {"train_size": 300, "validation_size": 50, "test_size": 60}


@pytest.fixture(scope="module")
def data(prepared_directory):
    return load_multi_mnist(prepared_directory, **SIZES)


@pytest.fixture
def published(tmp_path):
    """Made-up digits in the format of Keras's file: image k is k everywhere."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 60), ("test", 20)):
        values = np.arange(number, dtype="uint8")
        arrays[f"x_{part}"] = np.tile(values[:, None, None], (1, 28, 28))
        arrays[f"y_{part}"] = generator.integers(0, 10, number, "uint8")
    publisher = tmp_path / "publisher"
    publisher.mkdir()
    path = publisher / "mnist.npz"
    np.savez(path, **arrays)
    directory = tmp_path / "data"
    directory.mkdir()
    return arrays, {
        "data_dir": directory,
        "data_url": path.as_uri(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        **SIZES,
    }


def test_each_digit_is_in_its_corner():
    left = np.full((2, 28, 28), 100, "uint8")
    right = np.full((2, 28, 28), 200, "uint8")
    nothing = np.zeros_like(left)
    assert overlay(left, right).dtype == np.uint8
    # 28 of 36 pixels are 21.8 of 28.
    expected = np.zeros((28, 28), "uint8")
    expected[:22, :22] = 100
    np.testing.assert_array_equal(overlay(left, nothing)[1], expected)
    np.testing.assert_array_equal(overlay(nothing, left)[1], expected[::-1, ::-1])


def test_the_brighter_pixel_is_seen():
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 256, (2, 3, 28, 28)).astype("uint8")
    nothing = np.zeros_like(left)
    both = np.maximum(overlay(left, nothing), overlay(nothing, right))
    np.testing.assert_array_equal(overlay(left, right), both)


def test_images_of_a_batch_do_not_mix():
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 256, (2, 3, 28, 28)).astype("uint8")
    one = overlay(left[1:2], right[1:2])
    np.testing.assert_array_equal(overlay(left, right)[1:2], one)


def test_shapes_types_and_range(data):
    assert data.sizes == {"train": 300, "validation": 50, "test": 60}
    assert data.task_names == ["left", "right"]
    for name in SPLITS:
        x, y = getattr(data, name)
        assert x.shape[1:] == (28, 28, 1) and x.dtype == np.float32
        assert x.min() == 0.0 and 0.9 < x.max() <= 1.0
        assert y["left"].dtype == np.int32
    assert set(data.train.y["right"]) == set(range(10))


def test_splits_have_no_digit_in_common(data):
    rows = {name: set(data.meta["source_rows"][name].ravel()) for name in SPLITS}
    assert not rows["train"] & rows["validation"]
    assert max(rows["train"] | rows["validation"]) < 6000
    assert max(rows["test"]) < 1500


def test_images_are_the_digits_that_meta_names(data, prepared_directory):
    with np.load(Path(prepared_directory) / "mnist_small.npz") as mnist:
        source = {name: mnist[name] for name in mnist}
    for name in SPLITS:
        part = "test" if name == "test" else "train"
        images, classes = source[f"x_{part}"], source[f"y_{part}"]
        left, right = data.meta["source_rows"][name]
        x, y = getattr(data, name)
        expected = overlay(images[left], images[right]) / np.float32(255)
        np.testing.assert_array_equal(x[..., 0], expected)
        np.testing.assert_array_equal(y["left"], classes[left])
        np.testing.assert_array_equal(y["right"], classes[right])


def test_seed(prepared_directory, data):
    again = load_multi_mnist(prepared_directory, **SIZES)
    other = load_multi_mnist(prepared_directory, **SIZES, seed=1)
    np.testing.assert_array_equal(data.test.x, again.test.x)
    assert not np.array_equal(data.test.x, other.test.x)


def test_the_public_file_is_fetched(published):
    arrays, arguments = published
    read = load_multi_mnist(**arguments, train_digits=60, test_digits=10)
    assert read.meta["path"] == str(arguments["data_dir"] / "mnist.npz")
    assert read.meta["source_rows"]["test"].max() < 10
    left, right = read.meta["source_rows"]["train"]
    top, bottom = read.train.x[:, 0, 0, 0] * 255, read.train.x[:, -1, -1, 0] * 255
    np.testing.assert_allclose(top, left, rtol=1e-6)
    np.testing.assert_allclose(bottom, right, rtol=1e-6)
    np.testing.assert_array_equal(read.train.y["left"], arrays["y_train"][left])


def test_more_digits_than_the_prepared_file_has(published):
    _, arguments = published
    prepared = arguments["data_dir"] / "mnist_small.npz"
    prepared.write_bytes(b"no data")
    read = load_multi_mnist(**arguments, train_digits=60_000)
    assert read.meta["path"].endswith("mnist.npz")
    with pytest.raises(ValueError, match=r"must have the sha256.*Received"):
        load_multi_mnist(**arguments)


def test_without_a_file_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mnist_small\.npz.*data_dir"):
        load_multi_mnist(tmp_path, download=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_size": 0}, "`test_size` must be.*Received: test_size=0"),
        ({"train_digits": 5}, "`train_digits` must be.*Received: train_digits=5"),
        ({"test_digits": 10_001}, "`test_digits` must be.*Received"),
        ({"data_url": "http://localhost:9/a"}, "needs the `sha256`.*Received"),
    ],
)
def test_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_multi_mnist(tmp_path, **arguments)
