import csv
import io
import pathlib
import zipfile

import numpy as np
import pytest

from keras_mtl.datasets import load_movielens
from keras_mtl.datasets.movielens import GENRES, TASKS

SPLITS = ("train", "validation", "test")
NAME = "movielens_latest_small_2018.npz"


@pytest.fixture(scope="module")
def data(prepared_directory):
    return load_movielens(prepared_directory, position_bias=1.0)


def test_sizes_and_labels(data):
    assert data.task_names == list(TASKS)
    assert sum(data.sizes.values()) == 5 * 100_836
    assert (data.meta["num_users"], data.meta["num_items"]) == (610, 9742)
    for name in SPLITS:
        x, y = getattr(data, name)
        assert {k: v.dtype.kind for k, v in x.items()} == {
            "user": "i",
            "item": "i",
            "genres": "f",
            "year": "f",
            "position": "i",
        }
        watched = y["watched"] == 1
        assert set(np.unique(y["watched"])) == {0, 1}
        for task in ("rating", "liked"):
            np.testing.assert_array_equal(np.isnan(y[task]), ~watched)
        np.testing.assert_array_equal(y["liked"][watched], y["rating"][watched] >= 4)
        assert y["rating"][watched].min() >= 0.5 and y["rating"][watched].max() <= 5
    assert data.test.y["watched"].mean() == pytest.approx(0.2)


def test_the_split_is_by_time_for_each_user(data, prepared_directory):
    with np.load(pathlib.Path(prepared_directory) / NAME) as raw:
        times = {
            (int(u), int(i)): int(t)
            for u, i, t in zip(raw["user"], raw["item"], raw["timestamp"], strict=True)
        }
    last, first = {}, {}
    for name, kept, choose in (("train", last, max), ("test", first, min)):
        x, _ = getattr(data, name)
        for u, i in zip(x["user"].tolist(), x["item"].tolist(), strict=True):
            if (u, i) in times:
                kept[u] = choose(kept.get(u, times[u, i]), times[u, i])
    assert len(last) == len(first) == 610
    assert all(last[u] <= first[u] for u in last)


def test_films_that_are_drawn_were_never_rated(data, prepared_directory):
    with np.load(pathlib.Path(prepared_directory) / NAME) as raw:
        known = set(zip(raw["user"].tolist(), raw["item"].tolist(), strict=True))
    x, y = data.test
    pairs = list(zip(x["user"].tolist(), x["item"].tolist(), strict=True))
    rated = np.array([pair in known for pair in pairs])
    np.testing.assert_array_equal(rated, y["watched"] == 1)


def test_positions_are_ranks_of_lists(data):
    for name in SPLITS:
        position = getattr(data, name).x["position"]
        counts = np.bincount(position, minlength=10)
        assert len(counts) == 10
        # Lists that are not full are the last of a user.
        assert (np.diff(counts) <= 0).all()
        assert counts[0] - counts[-1] <= 610


def test_what_is_seen_falls_with_the_position(data, prepared_directory):
    """The part of watched films that are seen is the probability that is stated."""
    plain = load_movielens(prepared_directory, position_bias=0.0)
    for name in ("train", "validation"):
        (x, y), (_, truth) = getattr(data, name), getattr(plain, name)
        watched = truth["watched"] == 1
        assert watched.mean() == pytest.approx(0.2)
        for position in range(10):
            there = watched & (x["position"] == position)
            seen = y["watched"][there].mean()
            expected = 1 / (1 + position)
            spread = np.sqrt(expected * (1 - expected) / there.sum())
            assert abs(seen - expected) < 4 * spread + 1e-9
    np.testing.assert_array_equal(data.test.y["watched"], plain.test.y["watched"])


def test_popular_films_come_first(data):
    x, y = data.train
    popularity = np.bincount(x["item"][y["watched"] == 1], minlength=9742)
    means = [popularity[x["item"][x["position"] == p]].mean() for p in range(10)]
    assert (np.diff(means) < 0).all() and means[0] > 5 * means[-1]


@pytest.mark.slow
def test_a_seed_is_a_draw(prepared_directory, data):
    again = load_movielens(prepared_directory, position_bias=1.0)
    other = load_movielens(prepared_directory, position_bias=1.0, seed=1)
    np.testing.assert_array_equal(again.train.x["item"], data.train.x["item"])
    assert (other.train.x["item"] != data.train.x["item"]).any()


def test_tasks_and_negatives(prepared_directory):
    data = load_movielens(prepared_directory, tasks=["liked"], negatives=1)
    assert data.task_names == ["liked"]
    assert sum(data.sizes.values()) == 2 * 100_836


def as_published(prepared, path, change=None):
    """Writes the arrays of the prepared file as the publisher's archive has them."""
    with np.load(prepared) as raw:
        arrays = {name: raw[name] for name in raw.files}
    genres = np.unpackbits(arrays["item_genres"], axis=1, count=len(GENRES))
    movies = [
        (number, title, "|".join(np.array(GENRES)[row == 1]))
        for number, title, row in zip(
            arrays["item_movie_id"], arrays["item_title"], genres, strict=True
        )
    ]
    stars = arrays["rating_x2"] / 2
    if change:
        stars[0] = change
    ratings = zip(
        arrays["user"] + 1,
        arrays["item_movie_id"][arrays["item"]],
        stars,
        arrays["timestamp"],
        strict=True,
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, header, rows in (
            ("movies.csv", ("movieId", "title", "genres"), movies),
            ("ratings.csv", ("userId", "movieId", "rating", "timestamp"), ratings),
        ):
            text = io.StringIO()
            writer = csv.writer(text)
            writer.writerow(header)
            writer.writerows(rows)
            archive.writestr(f"ml-latest-small/{name}", text.getvalue())


@pytest.mark.slow
def test_the_published_archive_gives_the_same(prepared_directory, data, tmp_path):
    as_published(
        pathlib.Path(prepared_directory) / NAME, tmp_path / "ml-latest-small.zip"
    )
    published = load_movielens(tmp_path, position_bias=1.0)
    for name in SPLITS:
        (x, y), (other_x, other_y) = getattr(data, name), getattr(published, name)
        for key in x:
            np.testing.assert_array_equal(x[key], other_x[key])
        for task in y:
            np.testing.assert_array_equal(y[task], other_y[task])


@pytest.mark.slow
def test_refuses_another_release(prepared_directory, tmp_path):
    path = tmp_path / "ml-latest-small.zip"
    as_published(pathlib.Path(prepared_directory) / NAME, path, change=1.0)
    with pytest.raises(ValueError, match=r"the data set as published.*Received"):
        load_movielens(tmp_path)


def test_says_what_to_do_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ml-latest-small\.zip.*Received: "):
        load_movielens(tmp_path, download=False)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"tasks": ["seen"]}, "`tasks` must be names"),
        ({"negatives": 0}, "`negatives` must be a whole number of at least 1"),
        ({"position_bias": -1}, "`position_bias` must be a finite number"),
        ({"num_positions": 0}, "`num_positions` must be a whole number"),
        ({"policy_noise": -1}, "`policy_noise` must be a finite number"),
        ({"test_fraction": 1.0}, "`test_fraction` must be positive"),
        ({"seed": -1}, "`seed` must be a whole number"),
    ],
)
def test_refuses(tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        load_movielens(tmp_path, **arguments)
    assert "Received: " in str(error.value)
