import numpy as np
import pytest
from gradients import compiled, differentiate
from keras import ops

from keras_mtl.weighting import GradNorm

ONES = np.ones(3, "float32")


def balance(weighting, norms, losses=ONES, present=ONES, steps=400):
    losses, present = np.float32(losses), np.float32(present)
    norms = np.float32(norms)
    if not weighting.built:
        weighting.build(norms.shape)
    step = weighting.update_from_gradients
    if steps > 1:
        step = compiled(weighting, step)
    for _ in range(steps):
        step(*map(ops.convert_to_tensor, (losses, present, norms)))
    return ops.convert_to_numpy(weighting.task_weight).copy()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("norms", [[1.0, 4.0, 0.3], [1e6, 3e6, 1e3]])
def test_the_weighted_norms_become_equal_where_alpha_is_zero(optimizer, norms):
    weighting = GradNorm(alpha=0.0, optimizer=optimizer)
    weighted = balance(weighting, norms) * norms
    np.testing.assert_allclose(weighted, weighted.mean(), rtol=0.06)


def test_the_additive_step_balances_moderate_scales():
    weighting = GradNorm(alpha=0.0, step="additive", optimizer="sgd")
    norms = [1.0, 2.0, 0.5]
    weighted = balance(weighting, norms) * norms
    np.testing.assert_allclose(weighted, weighted.mean(), rtol=0.15)


def test_twenty_powers_of_ten_are_balanced():
    norms = np.array([1e-10, 1e10, 1.0])
    weighted = balance(GradNorm(alpha=0.0), norms, steps=2000) * norms
    np.testing.assert_allclose(weighted, weighted.mean(), rtol=0.1)


def test_the_weighted_norms_go_to_the_training_rates_where_alpha_is_one():
    weighting = GradNorm(alpha=1.0, initial_losses=[1.0, 10.0, 100.0])
    norms = np.array([1.0, 5.0, 0.2])
    losses = np.array([0.9, 6.0, 30.0])
    weighted = balance(weighting, norms, losses) * norms
    rates = losses / [1.0, 10.0, 100.0]
    np.testing.assert_allclose(
        weighted / weighted.mean(), rates / rates.mean(), rtol=0.06
    )


def test_one_additive_step_has_the_analytic_gradient():
    weighting = GradNorm(0.5, learning_rate=0.01, optimizer="sgd", step="additive")
    weighting.build((3,))
    weight, norms = np.array([1.4, 0.7, 0.9]), np.array([3.0, 2.0, 1.0])
    weighting.task_weight.assign(weight)
    weighting.first_losses.assign([1.0, 2.0, 4.0])
    weighting.seen.assign(ONES)
    losses = np.array([0.8, 1.9, 1.0])
    moved = balance(weighting, norms, losses, steps=1)
    rates = losses / [1.0, 2.0, 4.0]
    target = (weight * norms).mean() * (rates / rates.mean()) ** 0.5
    gradient = np.sign(weight * norms - target) * norms / norms.mean()
    expected = weight - 0.01 * gradient
    np.testing.assert_allclose(moved, 3 * expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("step", ["multiplicative", "additive"])
def test_weights_are_positive_and_sum_to_the_number_of_tasks(step):
    weighting = GradNorm(step=step, learning_rate=0.5)
    generator = np.random.default_rng(0)
    for _ in range(50):
        losses, norms = 10 ** generator.uniform(-10, 10, size=(2, 3))
        weight = balance(weighting, norms, losses, steps=1)
        assert weight.min() > 0
        np.testing.assert_allclose(weight.sum(), 3.0, rtol=1e-5)


def test_the_step_uses_the_weights_before_the_update():
    weighting = GradNorm()
    losses = np.array([1.0, 2.0, 3.0], "float32")
    for _ in range(3):
        before = ops.convert_to_numpy(weighting.task_weight) if weighting.built else 1.0
        result = differentiate(weighting, losses, training=True)
        np.testing.assert_allclose(result["weights"], before * ONES)
        weighting.update_from_gradients(losses, ONES, np.float32([1.0, 2.0, 3.0]))


def test_present_tasks_are_balanced_among_themselves():
    weighting = GradNorm(alpha=0.0)
    weight = balance(weighting, [1.0, 9.0, 3.0], present=[1, 0, 1])
    np.testing.assert_allclose(weight, [1.5, 1.0, 0.5], rtol=0.06)


def test_the_first_loss_of_a_task_is_that_of_its_first_batch():
    weighting = GradNorm(initial_losses={"a": 5.0})
    weighting.set_task_names(["a", "b", "c"])
    balance(weighting, ONES, [1.0, 2.0, 0.0], [1, 1, 0], steps=1)
    balance(weighting, ONES, [1.0, 3.0, 4.0], steps=1)
    np.testing.assert_allclose(
        ops.convert_to_numpy(weighting.first_losses), [5.0, 2.0, 4.0]
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_or_loss_that_is_not_finite_is_passed_over(bad):
    weighting = GradNorm()
    weight = balance(weighting, [bad, 1.0, 3.0], steps=3)
    assert np.isfinite(weight).all() and weight[0] == 1.0
    weight = balance(weighting, ONES, [1.0, bad, 1.0], steps=1)
    assert np.isfinite(weight).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1.0}, "`alpha` must be a finite number"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number"),
        ({"optimizer": "rmsprop"}, "`optimizer` must be one of"),
        ({"step": "exp"}, "`step` must be one of"),
        ({"initial_losses": [0.0]}, "`initial_losses` must be a finite number"),
        ({"min_weight": 0.0}, "`min_weight` must be a finite number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradNorm(**arguments)
