import numpy as np
import pytest
from built_learner import adapted, answered, built, softmax, to_numpy

from keras_mtl.learners import PrototypicalNetwork


def class_means(inputs):
    labels = inputs["support_y"] * inputs["support_mask"][..., None]
    sums = np.einsum("bsn,bsd->bnd", labels, inputs["support_x"])
    return sums / labels.sum(1)[..., None]


def distances(inputs):
    difference = inputs["query_x"][:, :, None] - class_means(inputs)[:, None]
    return (difference**2).sum(-1)


def test_phi_is_the_mean_of_each_class():
    learner, inputs = built(PrototypicalNetwork(ways=3), support=8)
    inputs["support_mask"][:, 2] = False
    phi = adapted(learner, inputs)
    np.testing.assert_allclose(
        to_numpy(phi["prototypes"]), class_means(inputs), atol=1e-6
    )


def test_answers_are_a_softmax_of_squared_distances():
    learner, inputs = built(PrototypicalNetwork(ways=3))
    given, squared = answered(learner, inputs), distances(inputs)
    np.testing.assert_allclose(given, softmax(-squared), atol=1e-5)
    assert np.abs(given - softmax(-np.sqrt(squared))).max() > 0.1


def test_cosine_is_scaled_by_ten_at_the_start():
    learner, inputs = built(PrototypicalNetwork(ways=3, distance="cosine"), scale=0)
    means, x = class_means(inputs), inputs["query_x"]
    products = np.einsum("bqd,bnd->bqn", x, means)
    norms = np.linalg.norm(x, axis=-1)[..., None], np.linalg.norm(means, axis=-1)
    cosine = products / norms[0] / norms[1][:, None]
    np.testing.assert_allclose(answered(learner, inputs), softmax(10 * cosine), 1e-4)


def test_squared_distances_have_no_weights():
    learner, _ = built(PrototypicalNetwork(ways=3))
    assert learner.variables == []


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_moving_all_features_changes_nothing(shift):
    learner, inputs = built(PrototypicalNetwork(ways=3))
    moved = {**inputs}
    for key in ("support_x", "query_x"):
        moved[key] = inputs[key] + np.float32(shift)
    np.testing.assert_allclose(
        answered(learner, moved), answered(learner, inputs), atol=1e-4
    )


def test_a_prototype_is_its_own_class():
    learner, inputs = built(PrototypicalNetwork(ways=3))
    inputs["query_x"] = class_means(inputs).astype("float32")
    probabilities = answered(learner, inputs)
    np.testing.assert_array_equal(
        probabilities.argmax(-1), np.tile(np.arange(3), (3, 1))
    )
