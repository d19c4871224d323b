"""What every weighting keeps: the contract of the base class."""

import keras
import numpy as np
import pytest
from gradients import differentiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import ops

from keras_mtl import weighting as weightings

NAMES = ["a", "b", "c"]


@keras.saving.register_keras_serializable("test_weighting")
def fade(step):
    return ops.stack([ops.ones(()), 1.0 / (1.0 + step), ops.exp(-0.1 * step)])


FACTORIES = {
    "dtp": weightings.DynamicTaskPrioritization,
    "dwa epochs": weightings.DynamicWeightAverage,
    "dwa steps": lambda: weightings.DynamicWeightAverage(window=2),
    "equal": weightings.Equal,
    "famo": weightings.FAMO,
    "famo next batch": lambda: weightings.FAMO(losses_after="next_batch"),
    "gls": weightings.GeometricMean,
    "gradnorm": weightings.GradNorm,
    "gradnorm additive": lambda: weightings.GradNorm(step="additive"),
    "gradnorm sgd": lambda: weightings.GradNorm(optimizer="sgd", alpha=0.5),
    "dro": weightings.GroupDRO,
    "dro relative": lambda: weightings.GroupDRO(relative=True),
    "imtl_l": lambda: weightings.IMTLLoss(0.3),
    "rlw": lambda: weightings.RandomWeighting(seed=1),
    "rlw dirichlet": lambda: weightings.RandomWeighting("dirichlet", seed=1),
    "si": weightings.ScaleInvariant,
    "schedule": lambda: weightings.Schedule(lambda step: 1.0 / (1.0 + step)),
    "static": lambda: weightings.Static(0.7),
    "stch epochs": lambda: weightings.SmoothTchebycheff(warmup_epochs=1),
    "stch steps": lambda: weightings.SmoothTchebycheff(mu=0.5, warmup_steps=2),
    "uncertainty": lambda: weightings.Uncertainty("classification", 0.3),
}
RANDOM = {"rlw", "rlw dirichlet"}

HARD_BATCHES = [
    ([1e-10, 1e10, 1.0], [1, 1, 1]),
    ([1e10, 1e-10, 1e-3], [1, 1, 1]),
    ([0.0, 1e10, 1e-10], [1, 1, 1]),
    ([0.0, 0.0, 0.0], [1, 1, 1]),
    ([0.0, 1e-10, 1e10], [0, 1, 1]),
    ([0.0, 0.0, 0.0], [0, 0, 0]),
    ([1e10, 0.0, 0.0], [1, 0, 0]),
    ([1e10, 1e10, 1e10], [1, 1, 1]),
    ([1e-10, 1e-10, 1e-10], [1, 1, 1]),
    ([1e-10, 1e10, 1.0], [1, 1, 1]),
]


@pytest.fixture(params=FACTORIES)
def method(request):
    return request.param


def array(values):
    return np.asarray(values, "float32")


def build(method, num_tasks=3):
    weighting = FACTORIES[method]()
    weighting.set_task_names(NAMES[:num_tasks])
    weighting.build((num_tasks,))
    return weighting


def train(weighting, losses, present, norms=None, after=None):
    """One training step as the engine takes it; returns what `differentiate` does."""
    losses, present = array(losses), array(present)
    result = differentiate(weighting, losses, present, training=True)
    if weighting.needs_gradient_norms:
        norms = 2.0 * losses if norms is None else array(norms)
        weighting.update_from_gradients(losses, present, norms)
    if weighting.needs_losses_after_step:
        after = losses * np.exp(-0.1 * losses) if after is None else array(after)
        weighting.update_after_step(after, present)
    return result


def random_batches(steps, num_tasks=3, seed=0, presence=0.7):
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        losses = np.exp(generator.normal(size=num_tasks))
        present = generator.random(num_tasks) < presence
        yield np.where(present, losses, 0.0), present


def state(weighting):
    return {v.path: ops.convert_to_numpy(v.value).copy() for v in weighting.variables}


def test_losses_over_twenty_powers_of_ten_give_nothing_but_finite_numbers(method):
    weighting = build(method)
    for epoch in range(2):
        for losses, present in HARD_BATCHES:
            result = train(weighting, losses, present)
            flat = [*result.pop("by_variables"), *result.values()]
            assert all(np.isfinite(values).all() for values in flat), losses
            for name, values in state(weighting).items():
                assert np.isfinite(values).all(), (name, losses)
        weighting.on_epoch_end(epoch, {})


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.lists(
        st.tuples(
            st.tuples(*[st.floats(-10, 10)] * 3), st.tuples(*[st.booleans()] * 3)
        ),
        min_size=1,
        max_size=2,
    )
)
def test_any_sequence_of_batches_gives_nothing_but_finite_numbers(data):
    for method in FACTORIES:
        weighting = build(method)
        for exponents, present in data:
            losses = np.where(present, 10.0 ** array(exponents), 0.0)
            weighted, weights = weighting(
                array(losses), array(present), training=True, return_weights=True
            )
            assert np.isfinite(ops.convert_to_numpy(weighted)).all(), method
            assert np.isfinite(ops.convert_to_numpy(weights)).all(), method


def test_weights_are_the_derivative_of_the_sum(method):
    weighting = build(method)
    for losses, present in random_batches(5):
        for training in (False, True):
            result = differentiate(weighting, losses, present, training)
            np.testing.assert_allclose(
                result["by_losses"], result["weights"], rtol=1e-5, atol=1e-7
            )
        train(weighting, losses, present)
        weighting.on_epoch_end(0, {})


def test_a_preference_bears_on_its_own_task_only(method):
    scale = array([1.0, 0.0, 5.0])
    weighting = build(method)
    for losses, present in random_batches(3):
        result = differentiate(weighting, losses, present, scale=scale)
        np.testing.assert_allclose(
            result["by_losses"], scale * result["weights"], rtol=1e-5, atol=1e-7
        )
        train(weighting, losses, present)
        weighting.on_epoch_end(0, {})


def test_an_absent_task_gives_no_loss_no_weight_and_no_gradient(method):
    weighting = build(method)
    for losses, present in random_batches(5):
        result = train(weighting, losses, present)
        for values in (*result.pop("by_variables"), *result.values()):
            np.testing.assert_array_equal(values[~present], 0.0)


def test_an_absent_task_keeps_its_state_bit_by_bit(method):
    if method == "dwa steps":
        pytest.skip("the end of a window, which is no batch of anyone's, moves it")
    weighting = build(method)
    for losses, present in random_batches(7):
        before = state(weighting)
        train(weighting, losses, present)
        for name, values in state(weighting).items():
            if values.shape == (3,):
                np.testing.assert_array_equal(
                    values[~present], before[name][~present], name
                )


def test_the_loss_of_an_absent_task_is_not_looked_at(method):
    plain, poisoned = build(method), build(method)
    for losses, present in random_batches(5):
        expected = train(plain, losses, present)
        bad = np.where(present, losses, np.nan)
        result = train(poisoned, bad, present)
        for key in ("weighted", "weights", "by_losses"):
            np.testing.assert_array_equal(result[key], expected[key])


def test_a_task_that_never_comes_has_no_influence(method):
    if method in RANDOM:
        pytest.skip("the draws for two tasks are others than those for three")
    three, two = build(method, 3), build(method, 2)
    for losses, present in random_batches(5, num_tasks=2, presence=0.9):
        expected = train(two, losses, present)
        result = train(three, [*losses, 0.0], [*present, False])
        for key in ("weighted", "weights", "by_losses"):
            np.testing.assert_allclose(result[key][:2], expected[key], rtol=1e-5)
        two.on_epoch_end(0, {})
        three.on_epoch_end(0, {})


def test_the_order_of_the_tasks_does_not_matter(method):
    if method in RANDOM:
        pytest.skip("the draws are made in the order of the tasks")
    straight, turned = build(method), build(method)
    for losses, present in random_batches(5):
        expected = train(straight, losses, present)
        result = train(turned, losses[::-1], present[::-1])
        for key in ("weighted", "weights", "by_losses"):
            np.testing.assert_allclose(
                result[key], expected[key][::-1], rtol=1e-5, atol=1e-7
            )
        straight.on_epoch_end(0, {})
        turned.on_epoch_end(0, {})


def test_evaluation_moves_no_state(method):
    weighting = build(method)
    train(weighting, [1.0, 2.0, 3.0], [1, 1, 1])
    before = state(weighting)
    differentiate(weighting, [3.0, 2.0, 1.0], training=False)
    for name, values in state(weighting).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_resumed_run_goes_on_as_if_uninterrupted(method):
    batches = list(random_batches(6))
    uninterrupted = build(method)
    for losses, present in batches[:3]:
        train(uninterrupted, losses, present)
    uninterrupted.on_epoch_end(0, {})

    resumed = build(method)
    resumed.set_weights(uninterrupted.get_weights())
    for losses, present in batches[3:]:
        expected = train(uninterrupted, losses, present)
        result = train(resumed, losses, present)
        for key in ("weighted", "weights", "by_losses"):
            np.testing.assert_array_equal(result[key], expected[key])


def test_a_config_makes_the_same_weighting(method):
    if method == "schedule":
        pytest.skip("holds a lambda, which Keras loads in unsafe mode only")
    weighting = build(method)
    train(weighting, [1.0, 2.0, 3.0], [1, 1, 1])
    config = keras.saving.serialize_keras_object(weighting)
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is type(weighting)
    assert restored.get_config() == weighting.get_config()
    assert restored.built
    restored.set_weights(weighting.get_weights())
    expected = train(weighting, [3.0, 2.0, 1.0], [1, 1, 1])
    result = train(restored, [3.0, 2.0, 1.0], [1, 1, 1])
    np.testing.assert_array_equal(result["weighted"], expected["weighted"])


def test_losses_are_float32_under_mixed_precision(method):
    keras.config.set_dtype_policy("mixed_float16")
    weighted = build(method)(array([1e-6, 1e6, 1.0]), training=True)
    assert keras.backend.standardize_dtype(weighted.dtype) == "float32"
    assert np.isfinite(ops.convert_to_numpy(weighted)).all()


def test_present_defaults_to_all_and_weights_are_returned_on_request_only(method):
    losses = array([1.0, 2.0, 3.0])
    alone = build(method)(losses)
    weighted, weights = build(method)(losses, np.ones(3), return_weights=True)
    assert tuple(alone.shape) == tuple(weighted.shape) == tuple(weights.shape) == (3,)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(alone), ops.convert_to_numpy(weighted)
    )


def test_a_vector_of_losses_is_expected(method):
    with pytest.raises(ValueError, match=r"static shape \(T,\). Received"):
        FACTORIES[method]()(np.ones((2, 3), "float32"))


class Toy(keras.Model):
    """Three linear tasks whose losses pass through every weighting at once."""

    def __init__(self, methods):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.all = [build(method) for method in methods]

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        training = kwargs.get("training", True)
        losses = ops.mean(ops.square(ops.subtract(y, y_pred)), axis=0)
        present = ops.convert_to_tensor(array([1, 1, 1]))
        total = 0.0
        for weighting in self.all:
            weighted = weighting(losses, present, training=training)
            if training and weighting.needs_gradient_norms:
                weighting.update_from_gradients(losses, present, ops.sqrt(losses))
            if training and weighting.needs_losses_after_step:
                weighting.update_after_step(losses * ops.exp(-losses), present)
            total = total + ops.sum(weighted)
        return total


def make_toy(methods, **compile_arguments):
    keras.utils.set_random_seed(0)
    model = Toy(methods)
    model(np.zeros((1, 4), "float32"))
    # Small, for the trajectories of many objectives at once must stay smooth:
    # what is compared is rounding.
    model.compile(keras.optimizers.SGD(1e-3), **compile_arguments)
    return model


def steps(model, number):
    """Losses of some training steps, none of them averaged with those before."""
    x, y = toy_data()
    losses = []
    for _ in range(number):
        model.reset_metrics()
        losses.append(model.train_on_batch(x, y))
    return losses


def toy_data(seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(32, 4)).astype("float32")
    return x, (x @ generator.normal(size=(4, 3)) * [1, 3, 10]).astype("float32")


def test_the_compiled_step_does_what_the_eager_step_does():
    settings = [{"run_eagerly": True}, {"jit_compile": False}]
    if keras.backend.backend() != "torch":  # where it takes half a minute
        settings.append({"jit_compile": True})
    histories = []
    for arguments in settings:
        # XLA draws other random numbers than TensorFlow does.
        model = make_toy(sorted(set(FACTORIES) - RANDOM), **arguments)
        losses = steps(model, 4)
        histories.append((losses, model.get_weights()))
    for losses, variables in histories[1:]:
        np.testing.assert_allclose(losses, histories[0][0], rtol=1e-4)
        for value, expected in zip(variables, histories[0][1], strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)


def test_a_model_that_is_saved_and_loaded_trains_on_as_it_would_have(tmp_path):
    model = make_toy(FACTORIES)
    steps(model, 3)
    path = tmp_path / "toy.weights.h5"
    model.save_weights(path)
    expected = steps(model, 3)

    restored = make_toy(FACTORIES)
    restored.load_weights(path)
    losses = steps(restored, 3)
    np.testing.assert_array_equal(losses, expected)
    for value, other in zip(restored.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)


@keras.saving.register_keras_serializable("test_weighting")
class InverseLoss(weightings.Weighting):
    """The weighting of a user's own that the documentation shows."""

    def build(self, losses_shape):
        super().build(losses_shape)
        self.average = self.add_state("average", initializer="ones")

    def task_weights(self, losses, present, training):
        return 1.0 / self.average

    def update(self, losses, present, weights):
        moved = 0.9 * self.average + 0.1 * losses
        self.average.assign(ops.where(present > 0, moved, self.average.value))


def test_a_weighting_of_ones_own_takes_ten_lines():
    weighting = InverseLoss()
    np.testing.assert_allclose(
        differentiate(weighting, [1.0, 11.0], training=True)["weights"], [1.0, 1.0]
    )
    result = differentiate(weighting, [1.0, 5.0], [1, 0], training=True)
    np.testing.assert_allclose(result["weights"], [1.0, 0.0])
    result = differentiate(weighting, [1.0, 4.0])
    np.testing.assert_allclose(result["weights"], [1.0, 0.5])
    np.testing.assert_allclose(result["by_losses"], [1.0, 0.5])


def test_a_weighting_without_task_weights_says_so():
    with pytest.raises(NotImplementedError, match="must override `task_weights`"):
        weightings.Weighting()(array([1.0, 2.0]))


def test_a_loss_that_is_not_finite_does_not_stay_in_the_state(method):
    weighting = build(method)
    train(weighting, [1.0, 2.0, 3.0], [1, 1, 1])
    for bad in (np.inf, np.nan):
        weighting(array([1.0, bad, 3.0]), training=True)
        for name, values in state(weighting).items():
            assert np.isfinite(values).all(), name
