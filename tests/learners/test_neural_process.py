import keras
import numpy as np
import pytest
from built_learner import (
    adapted,
    answered,
    built,
    decoded,
    dense_stack,
    mean_and_scale,
    sigmoid,
    to_numpy,
)
from every_learner import compile_model, episodes
from keras import ops

from keras_mtl import MetaModel
from keras_mtl.learners import NeuralProcess
from keras_mtl.learners.latent_path import divergence

SIZES = {"width": 6, "encoder_depth": 2, "decoder_depth": 2, "latent_dim": 2}
MASK = np.ones((3, 4), "float32")


def make(output_dim=2, **kwargs):
    return built(NeuralProcess(output_dim=output_dim, **{**SIZES, **kwargs}))


def given(learner, phi, query_x, z):
    """Returns mean and scale of each z `(B, L, Q, Dy, 2)`."""
    context = np.repeat(z[:, None], query_x.shape[1], 1)
    if learner.deterministic_path:
        path = to_numpy(phi["path"]["mean"])[:, None, None]
        path = np.broadcast_to(path, (*context.shape[:3], path.shape[-1]))
        context = np.concatenate([path, context], -1)
    raw = decoded(learner.decoder, query_x, context).transpose(0, 2, 1, 3)
    return mean_and_scale(raw)


def log_density(y, parameters):
    mean, scale = parameters[..., 0], parameters[..., 1]
    return -0.5 * ((y - mean) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))


def log_mean_exp(x, axis):
    greatest = x.max(axis, keepdims=True)
    return np.log(np.exp(x - greatest).mean(axis)) + greatest.squeeze(axis)


def normal(mean, scale):
    return {"mean": np.array(mean, "float32"), "scale": np.array(scale, "float32")}


def kl(p, q):
    """Returns what `divergence` says of arrays."""
    p, q = ({k: ops.convert_to_tensor(v) for k, v in n.items()} for n in (p, q))
    return to_numpy(divergence(p, q))


P = normal([[0.3, -1.0], [0.0, 2.0]], [[0.5, 0.9], [0.2, 0.7]])
Q = normal([[0.0, -0.5], [1.0, 1.0]], [[0.8, 0.4], [0.6, 0.7]])


def test_divergence_is_the_closed_form():
    p, q = P["scale"], Q["scale"]
    each = np.log(q / p) + (p**2 + (P["mean"] - Q["mean"]) ** 2) / (2 * q**2) - 0.5
    np.testing.assert_allclose(kl(P, Q), each.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(kl(P, P), 0, atol=1e-6)


def test_divergence_is_what_monte_carlo_finds():
    noise = np.random.default_rng(0).normal(size=(200_000, 2, 2))
    z = P["mean"] + P["scale"] * noise

    def log_of(n):
        return log_density(z, np.stack([n["mean"], n["scale"]], -1)).sum(-1)

    found = (log_of(P) - log_of(Q)).mean(0)
    np.testing.assert_allclose(kl(P, Q), found, rtol=0.02)


def test_the_latent_path_against_numpy():
    learner, inputs = make()
    mask = inputs["support_mask"]
    mask[1, 2:4] = False
    joined = np.concatenate([inputs["support_x"], inputs["support_y"]], -1)
    latent = adapted(learner, inputs)["latent"]
    each = dense_stack(learner.latent.each, joined) * mask[..., None]
    pooled = each.sum(1) / mask.sum(1, keepdims=True)
    numbers = dense_stack(learner.latent.pooled, pooled)
    np.testing.assert_allclose(to_numpy(latent["mean"]), numbers[:, :2], atol=1e-5)
    np.testing.assert_allclose(
        to_numpy(latent["scale"]), 0.1 + 0.9 * sigmoid(numbers[:, 2:]), atol=1e-5
    )


@pytest.mark.parametrize("path", [True, False])
def test_functions_are_those_of_z(path):
    learner, inputs = make(deterministic_path=path)
    phi, x = adapted(learner, inputs), inputs["query_x"]
    noise = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")
    noise[:, 1] = noise[:, 0]
    functions = to_numpy(learner.functions(phi, x, noise))
    z = to_numpy(phi["latent"]["mean"])[:, None]
    z = z + to_numpy(phi["latent"]["scale"])[:, None] * noise
    expected = given(learner, phi, x, z)[..., 0].transpose(1, 0, 2, 3)
    np.testing.assert_allclose(functions, expected, atol=1e-5)
    np.testing.assert_allclose(functions[0], functions[1], atol=1e-6)
    assert np.abs(functions[0] - functions[2]).max() > 1e-3


def test_a_function_is_the_same_at_other_queries():
    learner, inputs = make()
    phi, x = adapted(learner, inputs), inputs["query_x"]
    every = to_numpy(learner.sample(phi, x, 4, seed=3))
    alone = to_numpy(learner.sample(phi, x[:, 2:3], 4, seed=3))
    np.testing.assert_allclose(every[:, :, 2:3], alone, atol=1e-5)
    assert every.shape == (4, 3, 4, 2)


def test_predictions_are_moments_of_the_mixture():
    learner, inputs = make(num_samples=5)
    phi = adapted(learner, inputs)
    z = to_numpy(learner.latent.fixed_samples(phi["latent"]))
    each = given(learner, phi, inputs["query_x"], z)
    mean = each[..., 0].mean(1)
    second = (each[..., 0] ** 2 + each[..., 1] ** 2).mean(1)
    expected = np.stack([mean, np.sqrt(second - mean**2)], -1)
    np.testing.assert_allclose(answered(learner, inputs), expected, atol=1e-4)


def test_fixed_samples_have_mean_0_and_scale_1():
    learner = NeuralProcess(output_dim=1, latent_dim=3, num_samples=16)
    standard = {"mean": ops.zeros((1, 3)), "scale": ops.ones((1, 3))}
    z = to_numpy(learner.latent.fixed_samples(standard))[0]
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-5)


def test_log_likelihood_against_numpy():
    learner, inputs = make()
    phi, labels = adapted(learner, inputs), episodes(learner)[1]
    mask = MASK.copy()
    mask[1, 2:] = 0
    given_seed = to_numpy(
        learner.log_likelihood(phi, inputs["query_x"], labels, mask, n=6, seed=5)
    )
    z = to_numpy(learner.latent.samples(phi["latent"], 6, seed=5))
    each = log_density(labels[:, None], given(learner, phi, inputs["query_x"], z))
    of_sample = (each.sum(-1) * mask[:, None]).sum(-1)
    np.testing.assert_allclose(given_seed, log_mean_exp(of_sample, 1), rtol=1e-4)


def test_maximum_likelihood_is_that_per_query():
    learner, inputs = make(objective="maximum_likelihood", num_samples=3)
    labels = episodes(learner)[1]
    phi, mask = adapted(learner, inputs), MASK.copy()
    mask[1, 2:] = 0
    state = learner.latent.seed_generator.state
    state.assign([0, 7])
    found = learner.log_likelihood(phi, inputs["query_x"], labels, mask)
    state.assign([0, 7])
    loss = to_numpy(learner.objective(inputs, labels, mask, None))
    expected = -(to_numpy(found) / mask.sum(1)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_bound_is_at_most_the_likelihood():
    learner, inputs = make(latent_dim=1)
    labels = episodes(learner)[1]
    phi = adapted(learner, inputs)
    found = learner.log_likelihood(phi, inputs["query_x"], labels, MASK, 4000, seed=0)
    for task in range(3):
        # One z of each of many copies of the task.
        many = {k: np.repeat(v[task : task + 1], 500, 0) for k, v in inputs.items()}
        y = np.repeat(labels[task : task + 1], 500, 0)
        mask = np.ones((500, 4), "float32")
        bound = -4 * float(to_numpy(learner.objective(many, y, mask, None)))
        assert bound <= to_numpy(found)[task] + 0.05


def test_the_bound_against_numpy():
    learner, inputs = make(latent_dim=1)
    labels = episodes(learner)[1]
    many = {k: np.repeat(v[:1], 2000, 0) for k, v in inputs.items()}
    y, mask = np.repeat(labels[:1], 2000, 0), np.ones((2000, 4), "float32")
    mask[:, 3] = 0
    bound = -float(to_numpy(learner.objective(many, y, mask, None)))
    one = {k: v[:1] for k, v in inputs.items()}
    phi = adapted(learner, one)
    posterior = learner.latent(one["query_x"], labels[:1], mask[:1])
    noise = np.random.default_rng(0).normal(size=(1, 4000, 1))
    z = to_numpy(posterior["mean"])[:, None]
    z = z + to_numpy(posterior["scale"])[:, None] * noise
    each = log_density(labels[:1, None], given(learner, phi, one["query_x"], z))
    expected = (each.sum(-1)[..., :3].sum(-1)).mean()
    expected -= to_numpy(divergence(posterior, phi["latent"]))[0]
    np.testing.assert_allclose(bound, expected / 3, rtol=0.05)


@pytest.mark.parametrize("objective", ["evidence_bound", "maximum_likelihood"])
def test_labels_of_one_number_need_no_axis(objective):
    learner, inputs = make(output_dim=1, objective=objective, num_samples=3)
    labels = episodes(learner)[1]
    losses = []
    for y in (labels, labels[..., 0]):
        learner.latent.seed_generator.state.assign([0, 0])
        losses.append(float(to_numpy(learner.objective(inputs, y, MASK, None))))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_every_step_of_training_draws_another_z():
    model = MetaModel(NeuralProcess(output_dim=1, **SIZES))
    compile_model(model, keras.optimizers.SGD(0.0))
    inputs, labels = episodes(model.learner)
    losses = [model.fit(inputs, labels, verbose=0).history["loss"][0] for _ in "ab"]
    assert losses[0] != losses[1]
