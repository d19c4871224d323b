"""Does a model learn from the support, or has it memorised?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mtl.argument_checks import check_count
from keras_mtl.metrics import MeanAndInterval, mean_and_interval
from keras_mtl.models.meta_model import MetaModel


@dataclass(frozen=True)
class Memorisation:
    """What `memorisation` found: scores over episodes, and two differences.

    A score is the accuracy, or for regression the negative squared error of the mean:
    the larger the better.
    """

    right_support: MeanAndInterval
    """The score with the support of the task."""

    renamed_support: MeanAndInterval
    """With the classes of the support renamed, and the right answers as well. For
    regression, with the labels of the support dealt to other examples of it."""

    other_support: MeanAndInterval
    """With the support of another task."""

    transduction: float
    """The greatest change of an answer where the other queries are left out."""

    @property
    def use_of_support(self) -> float:
        """How much better the right support is than that of another task: near 0 for
        a model that has memorised."""
        return self.right_support.mean - self.other_support.mean

    def __str__(self) -> str:
        return "\n".join(
            [
                f"right support    {self.right_support}",
                f"renamed support  {self.renamed_support}",
                f"other support    {self.other_support}",
                f"use of support   {self.use_of_support:.3f}",
                f"transduction     {self.transduction:.1e}",
            ]
        )


def memorisation(
    model: MetaModel, episodes: Any, steps: int | None = None
) -> Memorisation:
    """Says whether a model uses the support, or has memorised its training tasks.

    Where a class always has the same label, a network can learn classes in its weights
    and ignore the support: it is right in training, and wrong on every new task. So the
    same queries are answered with three supports: the right one; the same with classes
    renamed, when right answers are renamed too; and that of another task of the batch.
    A model that learns from its support is as good with the second as with the first,
    and at chance with the third.

    It also asks one query of each task alone, and says how much the answer differs
    from that among all queries: anything but rounding is transduction.

    Args:
        model: A `MetaModel`.
        episodes: `Episodes`, `RegressionEpisodes` or another `PyDataset` of such
            batches, with at least two episodes in each.
        steps: Integer, how many batches to take. Defaults to `None`, all of them.

    Returns:
        A `Memorisation`.

    Raises:
        ValueError: If batches are without end and `steps` is not given, or a batch has
            one episode.

    Example:

    ```python
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    labels = np.repeat(np.arange(6), 10)
    episodes = keras_mtl.data.Episodes(x, labels, ways=3, num_batches=2, queries=3)
    model = keras_mtl.MetaModel(keras_mtl.learners.PrototypicalNetwork(ways=3))
    found = keras_mtl.analysis.memorisation(model, episodes)
    print(found.use_of_support)
    ```

    Reference:
        Yin et al., "Meta-Learning without Memorization", ICLR 2020,
        https://arxiv.org/abs/1912.03820
    """
    scores: dict[str, list[float]] = {"right": [], "renamed": [], "other": []}
    transduction = 0.0
    rng = np.random.default_rng(0)
    for inputs, labels, weights in _batches(episodes, steps):
        if len(labels) < 2:
            raise ValueError(
                "`episodes` must have two or more in a batch, so that there is another "
                f"task. Received: {len(labels)}"
            )
        answers = model.predict_on_batch(inputs)
        scores["right"] += _scores(model, labels, answers, weights)
        renamed, names = _renamed(model, inputs, rng)
        answers_renamed = model.predict_on_batch(renamed)
        scores["renamed"] += _scores(
            model, _renamed_labels(labels, names), answers_renamed, weights
        )
        other = {
            key: np.roll(value, 1, axis=0) if key.startswith("support") else value
            for key, value in inputs.items()
        }
        scores["other"] += _scores(
            model, labels, model.predict_on_batch(other), weights
        )
        alone = {**inputs, "query_x": inputs["query_x"][:, :1]}
        difference = np.abs(model.predict_on_batch(alone)[:, 0] - answers[:, 0])
        transduction = max(transduction, float(difference.max()))
    return Memorisation(
        *(mean_and_interval(scores[key]) for key in ("right", "renamed", "other")),
        transduction,
    )


class MemorisationLogger(keras.callbacks.Callback):
    """Logs at the end of an epoch what `memorisation` finds.

    Logs are `use_of_support`, `right_support`, `renamed_support` and
    `other_support`. It comes before callbacks that read logs, such as a `CSVLogger`.

    Args:
        episodes: As of `memorisation`, of a finite number.
        every: Integer, after how many epochs. Defaults to 1.

    Example:

    ```python
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    labels = np.repeat(np.arange(6), 10)
    episodes = keras_mtl.data.Episodes(x, labels, ways=3, num_batches=2, queries=3)
    model = keras_mtl.MetaModel(keras_mtl.learners.DeepSet(ways=3, width=8))
    model.compile("adam", loss="categorical_crossentropy")
    logger = keras_mtl.analysis.MemorisationLogger(episodes)
    history = model.fit(episodes, callbacks=[logger], verbose=0)
    assert "use_of_support" in history.history
    ```
    """

    def __init__(self, episodes: Any, every: int = 1) -> None:
        super().__init__()
        self.episodes = episodes
        self.every = check_count("every", every)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds to the logs."""
        if logs is None or (epoch + 1) % self.every:
            return
        found = memorisation(self.model, self.episodes)
        logs["use_of_support"] = found.use_of_support
        logs["right_support"] = found.right_support.mean
        logs["renamed_support"] = found.renamed_support.mean
        logs["other_support"] = found.other_support.mean


def meta_overfitting_gap(
    model: MetaModel, train: Any, test: Any, steps: int | None = None
) -> dict[str, float]:
    """Returns how much each metric differs between training and new tasks.

    Args:
        model: A compiled `MetaModel`.
        train: Episodes of training tasks.
        test: Episodes of tasks that it was not trained on.
        steps: Integer, how many batches to take. Defaults to `None`, all of them.

    Returns:
        Metric on training tasks less that on new ones, by the name of the metric: with
        an accuracy, positive is overfitting to tasks.

    Example:

    ```python
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    labels = np.repeat(np.arange(6), 10)
    of = keras_mtl.data.Episodes
    train = of(x, labels, classes=range(3), ways=3, num_batches=2, queries=3)
    test = of(x, labels, classes=range(3, 6), ways=3, num_batches=2, queries=3)
    model = keras_mtl.MetaModel(keras_mtl.learners.PrototypicalNetwork(ways=3))
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    keras_mtl.analysis.meta_overfitting_gap(model, train, test)["accuracy"]
    ```
    """
    of_train, of_test = (
        model.evaluate(episodes, steps=steps, verbose=0) for episodes in (train, test)
    )
    return {
        name: of_train[name] - of_test[name]
        for name in of_train
        if not name.endswith("_ci95")
    }


def _batches(episodes: Any, steps: int | None) -> Iterator[tuple[Any, Any, Any]]:
    count = episodes.num_batches if steps is None else check_count("steps", steps)
    if count is None:
        raise ValueError(
            "`steps` must be given for episodes without end. Received: steps=None"
        )
    for index in range(count):
        inputs, labels, *weights = episodes[index]
        present = np.ones(labels.shape[:2]) if not weights else weights[0] != 0
        yield inputs, labels, present.astype("float64")


def _scores(
    model: MetaModel, labels: np.ndarray, answers: np.ndarray, weights: np.ndarray
) -> list[float]:
    """Returns the mean score of the queries of each episode."""
    if model.learner.ways is not None:
        right = labels if labels.ndim == 2 else labels.argmax(axis=-1)
        values = (answers.argmax(axis=-1) == right).astype("float64")
    else:
        mean = answers
        if model.learner.distribution is not None:
            mean = model.learner.distribution.mean(answers)
            mean = keras.ops.convert_to_numpy(mean)
        values = -((labels - mean) ** 2).mean(axis=-1)
    count = np.maximum(weights.sum(axis=1), 1)
    return ((values * weights).sum(axis=1) / count).tolist()


def _renamed(
    model: MetaModel, inputs: dict[str, Any], rng: np.random.Generator
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns inputs with other names, and the new name of each class `(B, N)`."""
    given = inputs["support_y"]
    if model.learner.ways is None:
        # Labels dealt to other examples; those that are padding stay last.
        keys = rng.uniform(size=given.shape[:2]) + 2 * ~inputs["support_mask"]
        order = np.argsort(keys, axis=1)[..., None]
        return {**inputs, "support_y": np.take_along_axis(given, order, axis=1)}, None
    ways = given.shape[-1] if given.ndim == 3 else model.learner.ways
    names = rng.permuted(np.tile(np.arange(ways), (len(given), 1)), axis=1)
    return {**inputs, "support_y": _renamed_labels(given, names)}, names


def _renamed_labels(labels: np.ndarray, names: np.ndarray | None) -> np.ndarray:
    if names is None:
        return labels
    if labels.ndim == 2:
        return np.take_along_axis(names, labels, axis=1)
    # Column n of the new labels is the column that is now named n.
    order = np.argsort(names, axis=1)[:, None, :]
    order = np.broadcast_to(order, labels.shape)
    return np.take_along_axis(labels, order, axis=2)
