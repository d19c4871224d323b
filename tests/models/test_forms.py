"""The forms of a multi-task model, each with its losses from NumPy."""

import keras
import numpy as np
import pytest

import keras_mtl

generator = np.random.default_rng(0)
ROWS = 48
X = generator.normal(size=(ROWS, 6)).astype("float32")
TASK = generator.integers(0, 3, ROWS).astype("int32")
Y = (X[:, :1] + TASK[:, None]).astype("float32")


def conditioned_model(loss, one_hot=False, task_names=("a", "b", "c"), **kwargs):
    x = keras.Input((6,), name="x")
    if one_hot:
        task = keras.Input((3,), name="task")
    else:
        task = keras.Input((), dtype="int32", name="task")
    z = keras_mtl.layers.TaskEmbedding(3, 4)(task)
    h = keras_mtl.layers.FiLM()(keras.layers.Dense(8, "relu")(x), z)
    model = keras_mtl.MultiTaskModel(
        {"x": x, "task": task},
        keras.layers.Dense(1)(h),
        task_names=task_names,
        task_input="task",
    )
    model.compile("adam", loss=loss, **kwargs)
    return model


@pytest.mark.parametrize("one_hot", [False, True])
def test_conditioned_losses_and_metrics_are_kept_per_task(one_hot):
    losses = {"a": "mse", "b": "huber", "c": "mae"}
    model = conditioned_model(losses, one_hot, metrics=["mae"], weighting="dwa")
    x = {"x": X, "task": np.eye(3, dtype="float32")[TASK] if one_hot else TASK}
    model.fit(x, Y, batch_size=10, verbose=0)
    logs = model.evaluate(x, Y, batch_size=10, verbose=0, return_dict=True)
    error = model.predict(x, verbose=0) - Y
    of = {name: error[TASK == index] for index, name in enumerate("abc")}
    np.testing.assert_allclose(logs["a_loss"], np.mean(of["a"] ** 2), rtol=1e-4)
    huber = keras.losses.Huber()(np.zeros_like(of["b"]), of["b"])
    np.testing.assert_allclose(logs["b_loss"], float(huber), rtol=1e-4)
    np.testing.assert_allclose(logs["c_loss"], np.mean(np.abs(of["c"])), rtol=1e-4)
    for name in "abc":
        np.testing.assert_allclose(
            logs[f"{name}_mae"], np.mean(np.abs(of[name])), rtol=1e-4
        )


def test_a_conditioned_task_without_loss_is_not_trained():
    model = conditioned_model({"a": "mse", "c": "mse"})
    assert model.task_names == ["a", "c"]
    x = {"x": X, "task": TASK}
    logs = model.evaluate(x, Y, verbose=0, return_dict=True)
    error = model.predict(x, verbose=0) - Y
    np.testing.assert_allclose(
        logs["c_loss"], np.mean(error[TASK == 2] ** 2), rtol=1e-4
    )
    assert "b_loss" not in logs


def test_rows_of_one_task_move_nothing_for_another():
    """A batch of one task is the step of a model that has that task alone."""
    only_b = TASK == 1
    x = {"x": X[only_b], "task": TASK[only_b]}
    models = []
    for loss in ({"b": "mse"}, "mse"):
        keras.utils.set_random_seed(0)
        model = conditioned_model(loss)
        model.fit(x, Y[only_b], shuffle=False, verbose=0)
        models.append(model.predict(x, verbose=0))
    np.testing.assert_allclose(models[0], models[1], rtol=1e-5)


def test_conditioned_inputs_may_be_a_list():
    x, task = keras.Input((6,), name="x"), keras.Input((), dtype="int32", name="task")
    z = keras_mtl.layers.TaskEmbedding(3, 4)(task)
    y = keras.layers.Dense(1)(keras_mtl.layers.ConcatConditioning()(x, z))
    model = keras_mtl.MultiTaskModel(
        [x, task], y, task_names=["a", "b", "c"], task_input="task"
    )
    model.compile("sgd", loss="mse")
    history = model.fit([X, TASK], Y, verbose=0).history
    assert {"a_loss", "b_loss", "c_loss"} <= set(history)


def test_each_task_its_own_inputs():
    digits, sensors = (
        keras.Input((6,), name="digits"),
        keras.Input((2,), name="sensors"),
    )
    trunk = keras.Sequential([keras.layers.Dense(4), keras.layers.BatchNormalization()])
    h = keras_mtl.layers.SharedTrunk(trunk)(
        {
            "digits": keras.layers.Dense(3)(digits),
            "sensors": keras.layers.Dense(3)(sensors),
        }
    )
    model = keras_mtl.MultiTaskModel(
        {"digits": digits, "sensors": sensors},
        {
            "digits": keras.layers.Dense(3, "softmax")(h["digits"]),
            "sensors": keras.layers.Dense(1)(h["sensors"]),
        },
    )
    model.compile(
        "adam", loss={"digits": "sparse_categorical_crossentropy", "sensors": "mse"}
    )
    x = {"digits": X, "sensors": X[:20, :2]}
    y = {"digits": TASK, "sensors": Y[:20]}
    logs = model.train_on_batch(x, y, return_dict=True)  # 48 rows and 20 rows
    assert np.isfinite(list(logs.values())).all()
    model.reset_metrics()
    logs = model.test_on_batch(x, y, return_dict=True)
    predicted = model.predict_on_batch(x)
    error = keras.ops.convert_to_numpy(predicted["sensors"]) - Y[:20]
    np.testing.assert_allclose(logs["sensors_loss"], np.mean(error**2), rtol=1e-4)
    kinds = {r.layer: r.kind for r in model.sharing_summary(lambda _: None)}
    assert list(kinds.values()).count("shared") == 1


def test_subclass_and_functional_models_live_side_by_side():
    """Making a functional model changes no class, so a `call` still works."""

    class Subclassed(keras_mtl.MultiTaskModel):
        def __init__(self):
            super().__init__(task_names=["a", "b"])
            self.h = keras.layers.Dense(3)

        def call(self, x, training=False):
            h = self.h(x)
            return {"a": h[:, :1], "b": h[:, 1:2]}

    inputs = keras.Input((6,))
    functional = keras_mtl.MultiTaskModel(
        inputs, {"a": keras.layers.Dense(1)(inputs), "b": keras.layers.Dense(1)(inputs)}
    )
    subclassed = Subclassed()
    assert isinstance(functional, keras_mtl.MultiTaskModel)
    for model in (functional, subclassed):
        model.compile("sgd", loss="mse")
        model.fit(X, {"a": Y, "b": Y}, verbose=0)
        assert set(model.predict(X, verbose=0)) == {"a", "b"}


def test_a_subclass_may_learn_its_tasks_from_the_losses():
    class Subclassed(keras_mtl.MultiTaskModel):
        def __init__(self):
            super().__init__()
            self.h = keras.layers.Dense(2)

        def call(self, x):
            h = self.h(x)
            return {"a": h[:, :1], "b": h[:, 1:]}

    model = Subclassed()
    with pytest.raises(ValueError, match=r"`task_names`.*Received: loss='mse'"):
        model.compile("sgd", loss="mse")
    model.compile("sgd", loss={"b": "mse", "a": "mae"})
    assert model.task_names == ["b", "a"]
    model.fit(X, {"a": Y, "b": Y}, verbose=0)


def test_order_of_tasks_is_that_of_the_outputs():
    inputs = keras.Input((6,))
    outputs = {name: keras.layers.Dense(1)(inputs) for name in ("z", "a", "m")}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile("sgd", loss=dict.fromkeys("amz", "mse"), metrics={"a": ["mae"]})
    assert model.task_names == ["z", "a", "m"]
    assert model.metrics_names == ["loss", "z_loss", "a_loss", "m_loss", "a_mae"]
    again = keras_mtl.MultiTaskModel.from_config(model.get_config())
    again.compile("sgd", loss=dict.fromkeys("amz", "mse"))
    assert again.task_names == ["z", "a", "m"]
