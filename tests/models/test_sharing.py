"""Which parameters serve which tasks."""

import keras
import pytest

import keras_mtl


def tree_model():
    """Trunk for a, b, c; branch for a, b; a head each."""
    inputs = keras.Input((4,))
    trunk = keras.layers.Dense(5, name="trunk")(inputs)
    branch = keras.layers.Dense(3, name="branch")(trunk)
    return keras_mtl.MultiTaskModel(
        inputs,
        {
            "a": keras.layers.Dense(1, name="head_a")(branch),
            "b": keras.layers.Dense(1, name="head_b")(branch),
            "c": keras.layers.Dense(1, name="head_c")(trunk),
        },
    )


def names(variables):
    return sorted(v.path for v in variables)


def test_a_tree_of_sharing_is_read_off_the_graph(capsys):
    model = tree_model()
    rows = {row.layer: row for row in model.sharing_summary()}
    assert rows["trunk"].tasks == ("a", "b", "c") and rows["trunk"].parameters == 25
    assert rows["branch"].tasks == ("a", "b") and rows["branch"].kind == "shared"
    assert rows["head_c"].tasks == ("c",) and rows["head_c"].kind == "private"
    printed = capsys.readouterr().out
    assert "trunk" in printed and "total: 43 shared, 14 private" in printed
    assert sum(row.parameters for row in rows.values()) == model.count_params()


def test_variables_are_shared_or_of_one_task():
    model = tree_model()
    assert names(model.shared_variables) == [
        "branch/bias", "branch/kernel", "trunk/bias", "trunk/kernel",
    ]  # fmt: skip
    assert names(model.task_variables("c")) == ["head_c/bias", "head_c/kernel"]
    with pytest.raises(ValueError, match=r"`task`.*Received: task='d'"):
        model.task_variables("d")


def test_frozen_layers_are_in_the_summary_but_not_among_the_variables():
    model = tree_model()
    model.get_layer("trunk").trainable = False
    assert names(model.shared_variables) == ["branch/bias", "branch/kernel"]
    assert {row.layer for row in model.sharing_summary(lambda line: None)} >= {"trunk"}


def test_a_nested_model_is_one_layer():
    inputs = keras.Input((4,))
    trunk = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(3)], name="trunk"
    )
    h = trunk(inputs)
    model = keras_mtl.MultiTaskModel(
        inputs, {t: keras.layers.Dense(1, name=t)(h) for t in "ab"}
    )
    rows = model.sharing_summary(lambda line: None)
    assert [(r.layer, r.parameters) for r in rows if r.kind == "shared"] == [
        ("trunk", 27)
    ]
    assert len(model.shared_variables) == 4


def test_one_output_serves_all_tasks():
    x, task = keras.Input((4,), name="x"), keras.Input((), dtype="int32", name="task")
    z = keras_mtl.layers.TaskEmbedding(2, 3)(task)
    y = keras.layers.Dense(1)(keras_mtl.layers.ConcatConditioning()(x, z))
    model = keras_mtl.MultiTaskModel(
        {"x": x, "task": task}, y, task_names=["a", "b"], task_input="task"
    )
    assert all(row.tasks == ("a", "b") for row in model.sharing_summary(lambda _: None))
    assert model.task_variables("a") == []


def test_encoders_before_a_shared_trunk_are_private():
    inputs = {t: keras.Input((4,), name=t) for t in "ba"}
    encoded = {t: keras.layers.Dense(3, name=f"in_{t}")(inputs[t]) for t in inputs}
    trunk = keras_mtl.layers.SharedTrunk(keras.layers.Dense(3), name="trunk")
    h = trunk(encoded)
    outputs = {t: keras.layers.Dense(1, name=f"out_{t}")(h[t]) for t in inputs}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    tasks = {row.layer: row.tasks for row in model.sharing_summary(lambda _: None)}
    assert tasks.pop("trunk") == ("b", "a")
    assert tasks == {f"{end}_{t}": (t,) for end in ("in", "out") for t in inputs}


def test_stacked_heads_are_neither_shared_nor_private():
    inputs = keras.Input((4,))
    h = keras.layers.Dense(3, name="trunk")(inputs)
    heads = keras_mtl.layers.MultiHead(1, ["a", "b"])
    model = keras_mtl.MultiTaskModel(inputs, heads(h))
    kinds = {row.layer: row.kind for row in model.sharing_summary(lambda _: None)}
    assert kinds == {"trunk": "shared", heads.name: "stacked"}
    assert names(model.shared_variables) == ["trunk/bias", "trunk/kernel"]


def test_a_layer_that_no_task_needs_is_unused():
    inputs = keras.Input((4,))
    outputs = {
        "a": keras.layers.Dense(1, name="a")(inputs),
        "extra": keras.layers.Dense(1, name="extra")(inputs),
    }
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile("sgd", loss={"a": "mse"})
    rows = {row.layer: row.tasks for row in model.sharing_summary(lambda _: None)}
    assert rows == {"a": ("a",), "extra": ("extra",)}


class Subclassed(keras_mtl.MultiTaskModel):
    def __init__(self, **kwargs):
        super().__init__(task_names=["a", "b"], **kwargs)
        self.trunk = keras.layers.Dense(3)
        self.a, self.b = keras.layers.Dense(1), keras.layers.Dense(1)

    def call(self, x, training=False):
        h = self.trunk(x)
        return {"a": self.a(h), "b": self.b(h)}


class Named(Subclassed):
    def layer_tasks(self):
        return [(self.trunk, ("a", "b")), (self.a, ("a",)), (self.b, ("b",))]


def test_a_subclass_names_its_shared_layers():
    model = Named()
    model(keras.ops.zeros((1, 4)))
    assert len(model.shared_variables) == 2
    assert model.task_variables("b") == model.b.trainable_variables
    assert [row.kind for row in model.sharing_summary(lambda _: None)] == [
        "shared", "private", "private",
    ]  # fmt: skip


def test_a_subclass_that_does_not_is_told_how():
    with pytest.raises(
        ValueError, match=r"override `layer_tasks`.*Received: Subclassed"
    ):
        Subclassed().sharing_summary()
