"""Whether a model learns from the support is told from whether it has memorised."""

import keras
import numpy as np
import pytest

from keras_mtl import MetaModel, learners
from keras_mtl.analysis import (
    MemorisationLogger,
    memorisation,
    meta_overfitting_gap,
)
from keras_mtl.data import Episodes, RegressionEpisodes, Sinusoids
from keras_mtl.learners import Learner


@pytest.fixture
def data():
    """Six classes, far apart on one axis."""
    labels = np.repeat(np.arange(6), 20)
    noise = np.random.default_rng(0).normal(size=120)
    return (10 * labels + noise)[:, None].astype("float32"), labels


class Memorised(Learner):
    """Knows three classes by heart: it does not read the support."""

    def adapt(self, support_x, support_y, support_mask):
        return {"nothing": support_x[:, :1]}

    def predict(self, phi, query_x):
        names = keras.ops.cast(keras.ops.round(query_x[..., 0] / 10), "int32")
        return keras.ops.one_hot(keras.ops.clip(names, 0, 2), 3)


class FixedNames(Episodes):
    """Episodes of three classes that always have the same names."""

    def __getitem__(self, index):
        inputs, labels = super().__getitem__(index)
        eye = np.eye(3, dtype="float32")
        names = [np.round(inputs[key][..., 0] / 10) for key in ("support_x", "query_x")]
        support_y, labels = (eye[n.astype(int)] for n in names)
        return {**inputs, "support_y": support_y}, labels


def test_a_learner_uses_the_support(data):
    episodes = Episodes(*data, ways=3, num_batches=4)
    found = memorisation(MetaModel(learners.PrototypicalNetwork(ways=3)), episodes)
    assert found.right_support.mean > 0.99
    assert found.renamed_support.mean > 0.99
    assert found.use_of_support > 0.4
    assert found.transduction < 1e-5
    assert "use of support" in str(found)


def test_one_that_knows_by_heart_does_not(data):
    episodes = FixedNames(*data, classes=range(3), ways=3, num_batches=4)
    found = memorisation(MetaModel(Memorised(ways=3)), episodes)
    assert found.right_support.mean > 0.99
    assert found.use_of_support == 0
    assert found.renamed_support.mean < 0.6


def test_integer_labels(data):
    kinds = [
        Episodes(*data, ways=3, num_batches=2, labels_as=kind)
        for kind in ("one_hot", "index")
    ]
    model = MetaModel(learners.PrototypicalNetwork(ways=3))
    one_hot, index = (memorisation(model, episodes) for episodes in kinds)
    assert one_hot.renamed_support == index.renamed_support


def test_fixed_names_are_memorised_and_dealt_ones_are_not(data):
    # The trap that labels dealt anew in every episode are there for.
    def train(episodes):
        keras.utils.set_random_seed(1)
        model = MetaModel(
            learners.DeepSet(ways=3, width=32), keras.layers.Rescaling(0.05)
        )
        model.compile(keras.optimizers.Adam(3e-3), loss="categorical_crossentropy")
        model.fit(episodes, steps_per_epoch=60, verbose=0)
        test = type(episodes)(*data, classes=range(3), ways=3, num_batches=4, seed=1)
        return memorisation(model, test)

    dealt = train(Episodes(*data, classes=range(3), ways=3))
    assert dealt.right_support.mean > 0.95
    assert dealt.renamed_support.mean > 0.95
    assert dealt.use_of_support > 0.3


def test_regression():
    model = MetaModel(learners.ConditionalNeuralProcess(output_dim=1, width=16))
    episodes = RegressionEpisodes(Sinusoids(), num_batches=2)
    found = memorisation(model, episodes)
    assert found.right_support.mean < 0
    assert found.right_support.count == 32
    assert found.transduction < 1e-5


def test_in_the_logs(data):
    model = MetaModel(learners.DeepSet(ways=3, width=8))
    model.compile("adam", loss="categorical_crossentropy")
    episodes = Episodes(*data, ways=3, num_batches=2)
    history = model.fit(
        episodes, epochs=2, callbacks=[MemorisationLogger(episodes, every=2)], verbose=0
    ).history
    assert len(history["use_of_support"]) == 1


def test_gap_between_training_and_new_tasks(data):
    x, labels = data
    train = Episodes(x, labels, classes=range(3), ways=3, num_batches=2)
    test = Episodes(x, labels, classes=range(3, 6), ways=3, num_batches=2)
    model = MetaModel(Memorised(ways=3))
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    gap = meta_overfitting_gap(model, train, test)
    assert gap.keys() == {"accuracy", "loss"}
    of_train, of_test = (model.evaluate(e, verbose=0) for e in (train, test))
    assert gap["accuracy"] == of_train["accuracy"] - of_test["accuracy"]


def test_arguments_that_do_not_fit(data):
    model = MetaModel(learners.PrototypicalNetwork(ways=3))
    with pytest.raises(ValueError, match="`steps` must be given"):
        memorisation(model, Episodes(*data, ways=3))
    with pytest.raises(ValueError, match="two or more in a batch"):
        memorisation(
            model, Episodes(*data, ways=3, num_batches=1, episodes_per_batch=1)
        )
