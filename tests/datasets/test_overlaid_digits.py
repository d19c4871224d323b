import sys

import numpy as np
import pytest

from keras_mtl.datasets import load_overlaid_digits

datasets = pytest.importorskip("sklearn.datasets")


def load(**arguments):
    sizes = {"train_size": 200, "validation_size": 50, "test_size": 60}
    return load_overlaid_digits(**{**sizes, **arguments})


def test_shapes_types_and_range():
    data = load()
    assert data.sizes == {"train": 200, "validation": 50, "test": 60}
    assert data.train.x.shape == (200, 8, 12, 1) and data.train.x.dtype == np.float32
    assert data.train.x.min() == 0.0 and data.train.x.max() == 1.0
    assert data.task_names == ["left", "right", "sum"]
    assert data.train.y["left"].dtype == np.int32
    assert data.train.y["sum"].dtype == np.float32


def test_the_sum_is_the_sum():
    for x, y in (load().train, load().test):
        np.testing.assert_array_equal(y["left"] + y["right"], y["sum"])
        assert set(np.unique(y["left"])) == set(range(10)) and len(x)


def test_splits_have_no_source_image_in_common():
    rows = load().meta["source_rows"]
    together = np.concatenate(list(rows.values()))
    assert len(np.unique(together)) == len(together) == 1797


@pytest.mark.parametrize("width", [8, 12, 16])
def test_images_are_two_digits_of_their_split(width):
    source = datasets.load_digits()
    data = load(width=width)
    for name in ("train", "validation", "test"):
        rows = data.meta["source_rows"][name]
        images, classes = source.images[rows] / 16, source.target[rows]
        x, y = getattr(data, name)
        for image, left, right in zip(x[:5], y["left"], y["right"], strict=False):
            # A digit is nowhere brighter than the canvas it lies on.
            fits_left = np.all(images <= image[:, :8, 0] + 1e-6, axis=(1, 2))
            fits_right = np.all(images <= image[:, -8:, 0] + 1e-6, axis=(1, 2))
            pairs = [
                (i, j)
                for i in np.flatnonzero(fits_left & (classes == left))
                for j in np.flatnonzero(fits_right & (classes == right))
                if np.allclose(overlaid(images[i], images[j], width), image[..., 0])
            ]
            assert pairs


def overlaid(left, right, width):
    canvas = np.zeros((8, width))
    canvas[:, :8] = left
    canvas[:, -8:] = np.maximum(canvas[:, -8:], right)
    return canvas


def test_seed():
    first, again, other = load(), load(), load(seed=1)
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert not np.array_equal(first.test.x, other.test.x)


@pytest.mark.parametrize("width", [7, 17])
def test_width_out_of_range(width):
    with pytest.raises(ValueError, match=f"`width`.*Received: width={width}"):
        load(width=width)


def test_size_out_of_range():
    with pytest.raises(ValueError, match=r"`test_size`.*Received: test_size=0"):
        load(test_size=0)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"keras_mtl\[recipes\]"):
        load()
