import numpy as np
import pytest
from built_learner import adapted, answered, built, dense, dense_stack, sigmoid, softmax

from keras_mtl.learners import RelationNetwork


def relations(learner, inputs):
    """Returns g([c; x]) of every pair, its first layer on both at once."""
    labels = inputs["support_y"]
    means = np.einsum("bsn,bsd->bnd", labels, inputs["support_x"])
    means = means / labels.sum(1)[..., None]
    first = dense(learner.of_query, inputs["query_x"])[:, :, None]
    first = first + dense(learner.of_class, means)[:, None]
    return dense_stack(learner.rest, np.maximum(first, 0))[..., 0]


def test_relations_are_logits():
    learner, inputs = built(RelationNetwork(ways=3, hidden=5, depth=3))
    expected = softmax(relations(learner, inputs))
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-5)


def test_sigmoid_scores_are_each_of_their_own():
    learner, inputs = built(RelationNetwork(ways=3, hidden=5, scores="sigmoid"))
    given = answered(learner, inputs)
    np.testing.assert_allclose(given, sigmoid(relations(learner, inputs)), atol=1e-5)
    assert np.abs(given.sum(-1) - 1).max() > 0.1


def test_a_class_that_is_not_there_has_a_score_of_zero():
    learner, inputs = built(RelationNetwork(ways=3, hidden=5, scores="sigmoid"))
    inputs["support_mask"] = inputs["support_y"][..., 2] == 0
    assert (answered(learner, inputs)[..., 2] == 0).all()


@pytest.mark.parametrize("times", [2, 3])
def test_the_number_of_shots_does_not_matter(times):
    learner, inputs = built(RelationNetwork(ways=3, hidden=5))
    repeated = {
        key: np.concatenate([value] * times, 1) if key != "query_x" else value
        for key, value in inputs.items()
    }
    np.testing.assert_allclose(
        answered(learner, repeated), answered(learner, inputs), atol=1e-5
    )


def test_phi_is_one_vector_a_class():
    learner, inputs = built(RelationNetwork(ways=3, hidden=5))
    assert tuple(adapted(learner, inputs)["classes"].shape) == (3, 3, 5)
