"""MovieLens latest-small: is a film watched, and is it liked?"""

import csv
import io
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.datasets.data_directory import (
    PublicFile,
    check_content,
    data_directory,
    find_file,
)
from keras_mtl.datasets.loader_arguments import (
    check_fractions,
    check_tasks,
    public_file,
)
from keras_mtl.datasets.multi_task_data import MultiTaskData, Split

TASKS = ("watched", "rating", "liked")
PREPARED = {
    "movielens_latest_small_2018.npz": (
        "cdc90272ec2eee1dcd072b9cd585235b0f507233a62e5b4a63d60e3245b193a2"
    )
}
PUBLIC = PublicFile(
    "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"
)
# Of the arrays read, whichever file they were read from.
CONTENT = "f3b055b912286e8f158b2375122bbd1ad57a0048e79b1660349c3b521aeef966"

GENRES = (
    "(no genres listed)|Action|Adventure|Animation|Children|Comedy|Crime|Documentary|"
    "Drama|Fantasy|Film-Noir|Horror|IMAX|Musical|Mystery|Romance|Sci-Fi|Thriller|War|"
    "Western"
).split("|")
_LIKED = 4.0


def load_movielens(
    data_dir: str | os.PathLike | None = None,
    tasks: Sequence[str] = TASKS,
    negatives: int = 4,
    position_bias: float = 0.0,
    num_positions: int = 10,
    policy_noise: float = 1.0,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    download: bool = True,
    data_url: str | None = None,
    sha256: str | None = None,
) -> MultiTaskData:
    """MovieLens latest-small: 100,836 ratings of 9,742 films by 610 users.

    Objectives of a ranking, of engagement and of satisfaction:

    - `"watched"`: 1 for a film that the user has rated, 0 for `negatives` films drawn
      for each of them, evenly from those that the user never rated;
    - `"rating"`: 0.5 to 5 stars, NaN where the film was not watched;
    - `"liked"`: 1 for 4 stars or more, 0 for fewer, NaN where it was not watched.

    The split is by time, for each user: the last ratings are for the test, those
    before for validation.

    **Positions are simulated.** The rows of a user are shown in lists of
    `num_positions`, drawn at random, in the order of `log(1 + n) + policy_noise * z`
    with the number n of training ratings of the film and z normal: what is popular is
    shown first. In training and validation the user looks at position p = 0, 1, ...
    with probability

    $$ P(\\text{seen} \\mid p) = (1 + p)^{-\\eta} $$

    with eta = `position_bias`, and a film that is not seen is not watched, nor rated.
    Test labels are without it: the truth. With `position_bias=0` nothing is hidden.

    A prepared file (`movielens_latest_small_2018.npz`) or the publisher's
    (`ml-latest-small.zip`) is looked for in the data directory, else the publisher's is
    fetched; what was read must be the release of 2018.

    Args:
        data_dir: Directory of the file. Defaults to that of
            `keras_mtl.datasets.data_directory`.
        tasks: Names of the tasks. Defaults to all three.
        negatives: Number of films not watched for each that was. Defaults to 4.
        position_bias: Eta. Defaults to 0.
        num_positions: Length of the lists. Defaults to 10.
        policy_noise: How much of the order is chance. Defaults to 1.
        validation_fraction: Part of each user's ratings. Defaults to 0.1.
        test_fraction: Part of each user's ratings. Defaults to 0.1.
        seed: Non-negative integer of the draws. Defaults to 0.
        download: Whether to fetch a file that is not there. Defaults to `True`.
        data_url: Where to fetch it. Defaults to the publisher's site.
        sha256: Checksum of the file at `data_url`. Defaults to `None`, only what is
            in the file is checked.

    Returns:
        A `MultiTaskData`. `x` is a dict: `"user"` and `"item"`, int32 `(n,)`, counted
        from 0; `"genres"`, float32 `(n, 20)` of zeros and ones; `"year"`, float32
        `(n, 1)` with zero mean and unit deviation over the training rows; `"position"`,
        int32 `(n,)`. Labels are float32 `(n,)`. `meta` has `"num_users"`,
        `"num_items"`, `"genres"`, `"titles"`, `"seen_probability"` of each position,
        and `"path"`.

    Raises:
        FileNotFoundError: if there is no file and none could be fetched; the message
            says what to do.
        ValueError: for wrong arguments, or a file of another content.

    Example:

    ```
    data = keras_mtl.datasets.load_movielens(data_dir="data", position_bias=1.0)
    print(data.sizes, data.meta["seen_probability"])
    ```

    Reference:
        Harper and Konstan, "The MovieLens Datasets: History and Context", ACM
        Transactions on Interactive Intelligent Systems 5, 2015,
        https://doi.org/10.1145/2827872
    """
    check_tasks(tasks, TASKS)
    check_fractions(validation_fraction, test_fraction)
    check_count("negatives", negatives)
    check_number("position_bias", position_bias, at_least=0)
    check_count("num_positions", num_positions)
    check_number("policy_noise", policy_noise, at_least=0)
    check_count("seed", seed, at_least=0)
    public = public_file(PUBLIC, data_url, sha256)
    path = find_file(data_directory(data_dir), PREPARED, public, download)
    films = _read(path)
    generator = np.random.default_rng(seed)
    user, item = films["user"].astype("int32"), films["item"].astype("int32")
    of_split = _split_by_time(user, validation_fraction, test_fraction)
    known = np.sort(user.astype("int64") * len(films["year"]) + item)
    popularity = np.bincount(
        item[of_split["train"]], minlength=len(films["year"])
    ).astype("float64")
    years = films["year"][item[of_split["train"]]]
    mean, deviation = years[years > 0].mean(), years[years > 0].std()
    year = np.where(films["year"] > 0, (films["year"] - mean) / deviation, 0.0)
    seen_probability = (1.0 + np.arange(num_positions)) ** -position_bias
    splits = {}
    for name, chosen in of_split.items():
        users, items, stars = _with_negatives(
            user[chosen],
            item[chosen],
            films["stars"][chosen],
            negatives,
            len(films["year"]),
            known,
            generator,
        )
        score = np.log1p(popularity[items])
        score += policy_noise * generator.normal(size=len(items))
        position = _positions(users, score, num_positions, generator)
        watched = ~np.isnan(stars)
        if name != "test":
            seen = generator.uniform(size=len(items)) < seen_probability[position]
            watched &= seen
        stars = np.where(watched, stars, np.nan)
        labels = {
            "watched": watched,
            "rating": stars,
            "liked": np.where(watched, stars >= _LIKED, np.nan),
        }
        splits[name] = Split(
            {
                "user": users,
                "item": items,
                "genres": films["genres"][items].astype("float32"),
                "year": year[items, None].astype("float32"),
                "position": position,
            },
            {task: labels[task].astype("float32") for task in tasks},
        )
    return MultiTaskData(
        "movielens_latest_small",
        **splits,
        meta={
            "num_users": int(user.max()) + 1,
            "num_items": len(films["year"]),
            "genres": list(GENRES),
            "titles": films["titles"],
            "seen_probability": seen_probability,
            "path": str(path),
        },
    )


def _split_by_time(
    user: np.ndarray, validation_fraction: float, test_fraction: float
) -> dict[str, np.ndarray]:
    """Rows of each split; those of a user are together, in the order of time."""
    _, first, count = np.unique(user, return_index=True, return_counts=True)
    place = (np.arange(len(user)) - np.repeat(first, count)) / np.repeat(count, count)
    test = place >= 1 - test_fraction
    validation = ~test & (place >= 1 - test_fraction - validation_fraction)
    return {
        "train": np.flatnonzero(~test & ~validation),
        "validation": np.flatnonzero(validation),
        "test": np.flatnonzero(test),
    }


def _with_negatives(user, item, stars, negatives, num_items, known, generator):
    """Adds films that a user has not watched, without stars, in random order."""
    users = np.repeat(user, negatives)
    drawn = generator.integers(num_items, size=len(users)).astype("int32")
    wrong = np.arange(len(users))
    while len(wrong):
        pairs = users[wrong].astype("int64") * num_items + drawn[wrong]
        wrong = wrong[np.isin(pairs, known)]
        drawn[wrong] = generator.integers(num_items, size=len(wrong))
    order = generator.permutation(len(user) + len(users))
    none = np.full(len(users), np.nan)
    return (
        np.concatenate([user, users])[order],
        np.concatenate([item, drawn])[order],
        np.concatenate([stars, none])[order],
    )


def _positions(user, score, num_positions, generator):
    """Ranks the rows of lists drawn at random from those of each user."""
    chance = generator.uniform(size=len(user))
    by_user = np.lexsort((chance, user))
    sizes = np.bincount(user)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.arange(len(user)) - starts[user[by_user]]
    list_of = np.empty(len(user), "int64")
    list_of[by_user] = user[by_user] * (1 + sizes.max()) + place // num_positions
    ranked = np.lexsort((-score, list_of))
    _, first, count = np.unique(list_of[ranked], return_index=True, return_counts=True)
    position = np.empty(len(user), "int32")
    position[ranked] = np.arange(len(user)) - np.repeat(first, count)
    return position


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns ratings, by user and time, and films."""
    found = _read_prepared(path) if path.suffix == ".npz" else _read_public(path)
    order = np.lexsort((found["item"], found["time"], found["user"]))
    for name in ("user", "item", "stars", "time"):
        found[name] = found[name][order]
    arrays = ("user", "item", "stars", "time", "genres", "year", "titles")
    check_content(path, [found[name] for name in arrays], CONTENT)
    return found


def _read_prepared(path):
    with np.load(path, allow_pickle=False) as prepared:
        return {
            "user": prepared["user"].astype("int64"),
            "item": prepared["item"].astype("int64"),
            "stars": prepared["rating_x2"] / 2,
            "time": prepared["timestamp"].astype("int64"),
            "genres": np.unpackbits(prepared["item_genres"], axis=1, count=len(GENRES)),
            "year": prepared["item_year"].astype("int64"),
            "titles": prepared["item_title"],
        }


def _read_public(path):
    with zipfile.ZipFile(path) as archive:

        def rows(name):
            member = next(n for n in archive.namelist() if n.endswith("/" + name))
            text = io.TextIOWrapper(archive.open(member), "utf-8", newline="")
            return list(csv.DictReader(text))

        movies, ratings = rows("movies.csv"), rows("ratings.csv")
    place = {row["movieId"]: index for index, row in enumerate(movies)}
    genres = np.zeros((len(movies), len(GENRES)), "uint8")
    for index, row in enumerate(movies):
        for genre in row["genres"].split("|"):
            genres[index, GENRES.index(genre)] = 1
    years = [re.search(r"\((\d{4})\)\s*$", row["title"]) for row in movies]
    return {
        "user": np.array([int(row["userId"]) - 1 for row in ratings]),
        "item": np.array([place[row["movieId"]] for row in ratings]),
        "stars": np.array([float(row["rating"]) for row in ratings]),
        "time": np.array([int(row["timestamp"]) for row in ratings]),
        "genres": genres,
        "year": np.array([int(year.group(1)) if year else 0 for year in years]),
        "titles": np.array([row["title"] for row in movies]),
    }
