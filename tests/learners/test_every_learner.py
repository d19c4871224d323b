"""What holds of every learner."""

import pickle

import keras
import numpy as np
import pytest
from every_learner import (
    CLASSIFIERS,
    LEARNERS,
    answers,
    compile_model,
    episodes,
    make_model,
    trained_model,
)


def model_and_inputs(name, **kwargs):
    model = trained_model(name)
    return model, episodes(model.learner, **kwargs)[0]


each_learner = pytest.mark.parametrize("name", LEARNERS)
each_classifier = pytest.mark.parametrize(
    "name", [f"{name}-ways" for name in CLASSIFIERS]
)


@each_learner
def test_joint_equals_cached(name):
    model, inputs = model_and_inputs(name)
    joint = keras.ops.convert_to_numpy(model(inputs))
    phi = model.adapt(inputs["support_x"], inputs["support_y"])
    cached = model.predict_query(phi, inputs["query_x"], batch_size=6)
    np.testing.assert_allclose(cached, joint, atol=1e-5)
    np.testing.assert_allclose(answers(model, inputs), joint, atol=1e-5)
    for leaf in keras.tree.flatten(phi):
        assert isinstance(leaf, np.ndarray)
        assert len(leaf) == 3
    again = pickle.loads(pickle.dumps(phi))
    np.testing.assert_array_equal(
        cached, model.predict_query(again, inputs["query_x"], batch_size=6)
    )


@each_learner
def test_a_query_does_not_see_the_others(name):
    model, inputs = model_and_inputs(name, queries=75)
    every = answers(model, inputs)
    alone = answers(model, {**inputs, "query_x": inputs["query_x"][:, 7:8]})
    np.testing.assert_allclose(every[:, 7:8], alone, atol=1e-5)


@each_learner
def test_a_task_does_not_see_the_others(name):
    model, inputs = model_and_inputs(name)
    one = {key: value[1:2] for key, value in inputs.items()}
    np.testing.assert_allclose(
        answers(model, inputs)[1:2], answers(model, one), atol=1e-5
    )


@each_learner
def test_what_is_masked_is_not_there(name):
    model, inputs = model_and_inputs(name)
    padding = {
        "support_x": 100 * np.ones_like(inputs["support_x"][:, :2]),
        "support_y": np.roll(inputs["support_y"][:, :2], 1, axis=-1),
        "support_mask": np.zeros((3, 2), bool),
    }
    padded = dict(inputs)
    for key, value in padding.items():
        padded[key] = np.concatenate([inputs[key], value], axis=1)
    np.testing.assert_allclose(
        answers(model, inputs), answers(model, padded), atol=1e-5
    )
    between = {
        key: np.concatenate([v[:, :2], padding[key], v[:, 2:]], axis=1)
        for key, v in inputs.items()
        if key in padding
    }
    np.testing.assert_allclose(
        answers(model, inputs), answers(model, {**inputs, **between}), atol=1e-5
    )


@each_learner
def test_order_of_the_support(name):
    model, inputs = model_and_inputs(name)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = {
        key: value[:, order] if key.startswith("support") else value
        for key, value in inputs.items()
    }
    same = np.allclose(answers(model, inputs), answers(model, shuffled), atol=1e-5)
    # That a sequence matters may be too little to be seen: it is no promise.
    assert same or not model.learner.ignores_order


@each_classifier
def test_names_of_the_classes(name):
    model, inputs = model_and_inputs(name)
    renamed = {**inputs, "support_y": inputs["support_y"][..., [1, 2, 0]]}
    given, expected = answers(model, renamed), answers(model, inputs)[..., [1, 2, 0]]
    assert np.allclose(given, expected, atol=1e-5) == model.learner.permutes_labels


@each_classifier
def test_integer_labels_are_one_hot_labels(name):
    model, inputs = model_and_inputs(name)
    numbers = {**inputs, "support_y": inputs["support_y"].argmax(-1)}
    np.testing.assert_allclose(
        answers(model, inputs), answers(model, numbers), atol=1e-6
    )


@each_classifier
def test_answers_are_probabilities_of_classes_that_are_there(name):
    model, inputs = model_and_inputs(name)
    labels = inputs["support_y"].argmax(-1)
    two = {**inputs, "support_y": np.where(labels == 2, 0, labels)}
    probabilities = answers(model, two)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)
    assert probabilities.dtype == "float32"
    assert (probabilities[..., 2] == 0).all()
    # Episodes of fewer ways have narrower labels.
    narrow = {**two, "support_y": np.eye(2, dtype="float32")[two["support_y"]]}
    np.testing.assert_allclose(
        answers(model, narrow), probabilities[..., :2], atol=1e-6
    )


@each_learner
def test_a_loaded_model_adapts_alike(name, tmp_path):
    model = make_model(LEARNERS[name])
    inputs, labels = episodes(model.learner)
    model.train_on_batch(inputs, labels)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    phi, again = (
        keras.tree.flatten(
            m.learner.adapt(*(inputs[f"support_{key}"] for key in ("x", "y", "mask")))
        )
        for m in (model, loaded)
    )
    for one, other in zip(phi, again, strict=True):
        one, other = map(keras.ops.convert_to_numpy, (one, other))
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(
        model.train_on_batch(inputs, labels),
        loaded.train_on_batch(inputs, labels),
        rtol=1e-4,
    )


@each_learner
def test_gradients_reach_every_parameter(name):
    model = make_model(LEARNERS[name])
    inputs, labels = episodes(model.learner)
    model(inputs)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        noise = 0.1 * rng.normal(size=variable.shape)
        variable.assign(keras.ops.convert_to_numpy(variable) + noise)
    compile_model(model, keras.optimizers.SGD(1e-1))
    variables = model.trainable_variables
    if name == "MetaNetwork-ways":
        # The last adds one number to all weights of the last layer, and so to the
        # logits of all classes, which a softmax does not see.
        assert variables[-1].path.endswith("bias")
        variables = variables[:-1]
    before = [keras.ops.convert_to_numpy(v) for v in variables]
    model.fit(inputs, labels, verbose=0)
    for old, variable in zip(before, variables, strict=True):
        moved = np.abs(keras.ops.convert_to_numpy(variable) - old).max()
        assert moved > 0, variable.path


@each_learner
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(name, policy):
    keras.config.set_dtype_policy(policy)
    model = make_model(LEARNERS[name])
    inputs, labels = episodes(model.learner)
    history = model.fit(inputs, labels, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    predicted = answers(model, inputs)
    assert predicted.dtype == "float32"
    assert np.isfinite(predicted).all()
    joint = keras.ops.convert_to_numpy(model(inputs))
    tolerance = 2e-2 if policy == "mixed_float16" else 1e-1
    np.testing.assert_allclose(predicted, joint, atol=tolerance, rtol=tolerance)


@each_learner
def test_config(name):
    learner = LEARNERS[name]()
    config = learner.get_config()
    again = type(learner).from_config(config)
    assert again.get_config() == config
