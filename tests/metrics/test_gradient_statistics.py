import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.metrics import GradientStatistics

NAMES = ["a", "b", "c"]


def gramian(seed):
    rows = np.random.default_rng(seed).normal(size=(3, 5))
    return rows @ rows.T


def cosine(matrix, i, j):
    return matrix[i, j] / np.sqrt(matrix[i, i] * matrix[j, j])


def numbers(statistics):
    return {k: float(ops.convert_to_numpy(v)) for k, v in statistics.result().items()}


def test_means_over_batches():
    statistics = GradientStatistics(NAMES)
    batches = [gramian(0), gramian(1)]
    for index, batch in enumerate(batches):
        statistics.update_state(batch, np.array([1.0, 2.0, 3.0]) * (index + 1))
    found = numbers(statistics)
    assert list(found) == statistics.result_names
    for i, a in enumerate(NAMES):
        norm = np.mean([np.sqrt(batch[i, i]) for batch in batches])
        assert found[f"{a}_gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert found[f"{a}_gradient_weight"] == pytest.approx(1.5 * (i + 1), rel=1e-5)
        for j in range(i + 1, 3):
            mean = np.mean([cosine(batch, i, j) for batch in batches])
            assert found[f"cosine_{a}_{NAMES[j]}"] == pytest.approx(mean, abs=1e-5)
    pairs = [(0, 1), (0, 2), (1, 2)]
    conflicts = [cosine(batch, i, j) < 0 for batch in batches for i, j in pairs]
    assert found["conflict_rate"] == pytest.approx(np.mean(conflicts))


def test_absent_tasks_and_gradients_of_zero_are_left_out():
    statistics = GradientStatistics(NAMES)
    batch = np.array([[4.0, -2.0, 0.0], [-2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    statistics.update_state(batch, np.ones(3), present=[1, 1, 1])
    statistics.update_state(np.eye(3), np.full(3, 3.0), present=[1, 0, 1])
    found = numbers(statistics)
    assert found["cosine_a_b"] == pytest.approx(-1.0)
    assert found["b_gradient_norm"] == pytest.approx(1.0)
    assert found["b_gradient_weight"] == pytest.approx(1.0)
    assert found["a_gradient_weight"] == pytest.approx(2.0)
    assert found["cosine_a_c"] == pytest.approx(0.0)
    assert found["conflict_rate"] == pytest.approx(0.5)


def test_gradients_of_another_batch_are_not_counted():
    statistics = GradientStatistics(NAMES, ["norms", "weights"])
    statistics.update_state(np.diag([4.0, 1.0, 1.0]), np.ones(3))
    statistics.update_state(np.zeros((3, 3)), np.full(3, 2.0), counted=False)
    found = numbers(statistics)
    assert found["a_gradient_norm"] == pytest.approx(2.0)
    assert found["a_gradient_weight"] == pytest.approx(1.5)
    assert "conflict_rate" not in found


def test_nothing_seen_is_zero():
    statistics = GradientStatistics(NAMES)
    statistics.update_state(gramian(0), np.ones(3))
    statistics.reset_state()
    assert set(numbers(statistics).values()) == {0.0}


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_cosines_do_not_depend_on_scale(scale):
    statistics = GradientStatistics(["a", "b"], ["cosines"])
    factors = np.array([1.0, scale])
    statistics.update_state(np.outer(factors, factors) * [[4, -1], [-1, 1]])
    assert numbers(statistics)["cosine_a_b"] == pytest.approx(-0.5, rel=1e-5)


def test_config_and_unknown_kinds():
    made = GradientStatistics(NAMES, ["cosines", "norms"])
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(made)
    )
    assert again.result_names == made.result_names
    with pytest.raises(ValueError, match=r"`kinds` must be of .* Received: \['x'\]"):
        GradientStatistics(NAMES, ["x"])
