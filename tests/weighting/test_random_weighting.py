import numpy as np
import pytest
from gradients import compiled, differentiate
from keras import ops

from keras_mtl.weighting import RandomWeighting


def draws(weighting, number=300, num_tasks=3, present=None):
    weighting.build((num_tasks,))
    losses = ops.ones(num_tasks)
    present = losses if present is None else ops.array(present, "float32")
    draw = compiled(
        weighting,
        lambda losses: weighting(losses, present, training=True, return_weights=True)[
            1
        ],
    )
    return np.stack([ops.convert_to_numpy(draw(losses)) for _ in range(number)])


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_weights_are_on_the_simplex_and_equal_in_the_mean(distribution):
    weights = draws(RandomWeighting(distribution, seed=0))
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
    assert weights.min() > 0
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.05)
    assert weights.std(0).min() > 0.1


def test_the_dirichlet_weights_are_uniform_on_the_simplex():
    weights = draws(RandomWeighting("dirichlet", seed=0))
    # A coordinate of a uniform point has the density 2 (1 - w): variance 1 / 18.
    np.testing.assert_allclose(weights.var(0), 1 / 18, rtol=0.3)


def test_the_log_weights_of_the_other_are_normal():
    logs = np.log(draws(RandomWeighting(seed=0)))
    difference = logs[:, 0] - logs[:, 1]
    np.testing.assert_allclose(difference.var(), 2.0, rtol=0.3)
    np.testing.assert_allclose(difference.mean(), 0.0, atol=0.3)


def test_present_tasks_share_the_weight():
    weights = draws(RandomWeighting(seed=0), number=5, present=[1, 0, 1])
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(weights[:, 1], 0.0)


def test_a_seed_gives_the_same_draws_and_another_seed_others():
    first, again = draws(RandomWeighting(seed=3), 5), draws(RandomWeighting(seed=3), 5)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, draws(RandomWeighting(seed=4), 5))
    assert not np.allclose(first[0], first[1])


def test_evaluation_has_equal_weights_and_draws_nothing():
    weighting, undisturbed = RandomWeighting(seed=0), RandomWeighting(seed=0)
    result = differentiate(weighting, [1.0, 2.0, 0.0], [1, 1, 0])
    np.testing.assert_allclose(result["weights"], [0.5, 0.5, 0.0])
    undisturbed.build((3,))
    for state, expected in zip(weighting.weights, undisturbed.weights, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(state), ops.convert_to_numpy(expected)
        )


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="`distribution` must be one of"):
        RandomWeighting("uniform")
