"""Every wrong argument is refused at the earliest point, by name."""

import keras
import numpy as np
import pytest

import keras_mtl

X = np.zeros((8, 3), "float32")
Y = {"a": np.zeros((8, 1), "float32"), "b": np.zeros((8, 1), "float32")}


def outputs(inputs):
    return {name: keras.layers.Dense(1)(inputs) for name in "ab"}


def make_model(**compile_arguments):
    inputs = keras.Input((3,))
    model = keras_mtl.MultiTaskModel(inputs, outputs(inputs))
    if compile_arguments:
        model.compile("sgd", **compile_arguments)
    return model


def refuses(pattern):
    return pytest.raises(ValueError, match=rf"(?s){pattern}.*Received")


def test_construction():
    inputs = keras.Input((3,), name="x")
    one = keras.layers.Dense(1)(inputs)
    model = keras_mtl.MultiTaskModel
    with refuses("`inputs` and `outputs` go together"):
        model(inputs)
    with refuses("`outputs` must be a dict by task"):
        model(inputs, one)
    with refuses("`task_input` needs|`outputs` must be"):
        model(inputs, one, task_input="x")
    with refuses("`task_input` must name an input"):
        model(inputs, one, task_names=["a", "b"], task_input="task")
    with refuses("`task_names` must be unique"):
        model(inputs, one, task_names=["a", "a"], task_input="x")
    with refuses("`task_names` must be the keys of `outputs`"):
        model(inputs, outputs(inputs), task_names=["a", "c"])
    with refuses("`task_input` is for one output"):
        model(inputs, outputs(inputs), task_input="x")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({"loss": {"c": "mse"}}, "Keys of `loss`"),
        ({"loss": {}}, "`loss` must give at least one task"),
        ({"loss": {"a": None}}, "`loss` must give at least one task"),
        ({"loss": "mse", "loss_weights": {"c": 1.0}}, "Keys of `loss_weights`"),
        ({"loss": "mse", "loss_weights": {"a": -1.0}}, "`loss_weights` of task 'a'"),
        ({"loss": "mse", "loss_weights": {"a": np.nan}}, "`loss_weights` of task 'a'"),
        ({"loss": "mse", "loss_weights": [1.0, 2.0]}, "`loss_weights` must be a dict"),
        ({"loss": "mse", "metrics": {"c": ["mae"]}}, "Keys of `metrics`"),
        ({"loss": "mse", "weighted_metrics": {"c": ["mae"]}}, "Keys of `weighted_met"),
        ({"loss": "mse", "mask_value": {"c": -1}}, "Keys of `mask_value`"),
        ({"loss": "mse", "mask_value": {"a": np.inf}}, "`mask_value` of task 'a'"),
        ({"loss": "mse", "weighting": "unknown"}, ""),
    ],
)
def test_compile(arguments, pattern):
    with refuses(pattern):
        make_model(**arguments)


def test_a_metric_that_cannot_leave_labels_out():
    class Blind(keras.metrics.Mean):
        def update_state(self, y_true, y_pred):
            super().update_state(y_true - y_pred)

    with refuses("must take `sample_weight`"):
        make_model(loss="mse", metrics={"a": [Blind()]})


def test_a_weighting_built_for_other_tasks():
    weighting = keras_mtl.weighting.get("uncertainty")
    make_model(loss="mse", weighting=weighting)
    with refuses("`weighting` was built for 2 tasks"):
        make_model(loss={"a": "mse"}, weighting=weighting)


def test_not_compiled():
    model = make_model()
    with pytest.raises(ValueError, match=r"Call `compile\(\)` before `fit\(\)`"):
        model.fit(X, Y)
    with pytest.raises(ValueError, match="compiled"):
        model.set_loss_weights({"a": 1.0})


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({"y": {**Y, "c": Y["a"]}}, "Keys of `y`"),
        ({"y": Y["a"]}, "Labels must be a dict by task"),
        ({"y": {"a": None, "b": None}}, "at least one task"),
        ({"y": Y, "sample_weight": {"c": np.ones(8)}}, "Keys of `sample_weight`"),
        ({"y": Y, "class_weight": {"c": {0: 1}}}, "Keys of `class_weight`"),
        (
            {"y": Y, "class_weight": {0: 1.0, 1: 2.0}},
            "`class_weight` must be a dict by",
        ),
        ({"y": {**Y, "a": np.zeros((8, 2))}}, "task 'a'.*shapes must be equal"),
        ({"y": {**Y, "a": np.zeros((8, 1, 1, 1))}}, "Labels of task 'a'"),
    ],
)
def test_fit(arguments, pattern):
    with refuses(pattern):
        make_model(loss="mse").fit(X, verbose=0, **arguments)


def test_absent_labels_are_said():
    with pytest.warns(UserWarning, match=r"no labels for tasks \['b'\]"):
        make_model(loss="mse").fit(X, {"a": Y["a"]}, verbose=0)


def conditioned():
    x, task = keras.Input((3,), name="x"), keras.Input((), dtype="int32", name="task")
    z = keras_mtl.layers.TaskEmbedding(2, 3)(task)
    y = keras.layers.Dense(1)(keras_mtl.layers.ConcatConditioning()(x, z))
    model = keras_mtl.MultiTaskModel(
        {"x": x, "task": task}, y, task_names=["a", "b"], task_input="task"
    )
    model.compile("sgd", loss="mse")
    return model


def test_conditioned():
    x = {"x": X, "task": np.zeros(8, "int32")}
    with refuses("indices from 0 to 1"):
        conditioned().fit({**x, "task": np.full(8, 2, "int32")}, Y["a"], verbose=0)
    with refuses("must hold 'task'"):
        conditioned().fit({"x": X}, Y["a"], verbose=0)
    with refuses("each row belongs to one task"):
        conditioned().fit(x, Y, verbose=0)


def test_set_loss_weights():
    model = make_model(loss="mse", loss_weights={"a": 2.0})
    with refuses("Keys of `loss_weights`"):
        model.set_loss_weights({"c": 1.0})
    model.set_loss_weights({"b": 3})
    assert model.loss_weights == {"a": 2.0, "b": 3.0}


def test_a_loss_of_one_number_leaves_nothing_out():
    def correlation(y_true, y_pred):
        return -keras.ops.mean(y_true * y_pred)

    make_model(loss={"a": correlation}).fit(X, {"a": Y["a"]}, verbose=0)
    with refuses("returns one number for the whole batch"):
        model = make_model(loss={"a": correlation}, mask_value={"a": -1})
        model.fit(X, {"a": Y["a"]}, verbose=0)
