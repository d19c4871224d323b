import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_half_precision_gradients,
    check_jit,
    check_layer,
    slow_to_compile,
)

from keras_mtl.layers import TaskEmbedding

INDEX = np.arange(10, dtype="int32") % 3
SOFT = np.random.default_rng(0).dirichlet(np.ones(3), 10).astype("float32")
FORMS = {
    "index": INDEX,
    "index_column": INDEX[:, None],
    "index_of_each_step": np.tile(INDEX[:, None, None], (1, 4, 1)),
    "one_hot": np.eye(3, dtype="float32")[INDEX],
    "soft": SOFT,
    "soft_of_each_step": np.tile(SOFT[:, None], (1, 4, 1)),
}


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize(
    "form", ["index", "index_column", "index_of_each_step", "soft", "soft_of_each_step"]
)
def test_layer(form):
    check_layer(lambda: TaskEmbedding(3, 5), (FORMS[form],))


def test_one_hot_form_and_raw_form_as_layers():
    check_layer(lambda: TaskEmbedding(3), (INDEX,))
    check_layer(TaskEmbedding, (SOFT,))


@slow_to_compile
def test_jit():
    check_jit(lambda: TaskEmbedding(3, 5, embeddings_regularizer="l2"), (INDEX,))


def test_half_precision():
    check_half_precision_gradients(lambda: TaskEmbedding(3, 5), (SOFT,))


def test_all_forms_of_one_task_give_its_row():
    layer = TaskEmbedding(3, 5)
    rows = to_numpy(layer(np.arange(3)))
    np.testing.assert_array_equal(rows, to_numpy(layer.embeddings))
    for form in ("index", "index_column", "one_hot"):
        z = to_numpy(layer(FORMS[form]))
        np.testing.assert_allclose(z, rows[INDEX], rtol=1e-6)
    np.testing.assert_allclose(to_numpy(layer(SOFT)), SOFT @ rows, rtol=1e-5)


def test_every_integer_dtype_is_an_index():
    layer = TaskEmbedding(3, 5)
    for dtype in ("int8", "uint8", "int32", "int64"):
        z = to_numpy(layer(INDEX.astype(dtype)))
        np.testing.assert_array_equal(z, to_numpy(layer.embeddings)[INDEX])


def test_without_a_table_it_is_the_one_hot_descriptor():
    z = to_numpy(TaskEmbedding(3)(INDEX))
    np.testing.assert_array_equal(z, np.eye(3)[INDEX])


def test_a_raw_descriptor_passes_unchanged():
    layer = TaskEmbedding()
    metadata = np.random.default_rng(0).normal(size=(4, 7)).astype("float32")
    np.testing.assert_array_equal(to_numpy(layer(metadata)), metadata)
    assert not layer.weights


def test_one_task_leaves_the_rows_of_the_others():
    layer = TaskEmbedding(3, 5)
    task = keras.Input((), dtype="int32")
    model = keras.Model(task, layer(task))
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    before = to_numpy(layer.embeddings).copy()
    model.train_on_batch(np.full(4, 1, "int32"), np.ones((4, 5), "float32"))
    after = to_numpy(layer.embeddings)
    np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])
    assert (before[1] != after[1]).all()


@pytest.mark.parametrize("dim", [None, 5])
def test_an_index_out_of_range_inside_a_step_is_no_task(dim):
    task = keras.Input((), dtype="int32")
    model = keras.Model(task, TaskEmbedding(3, dim)(task))
    z = model.predict(np.array([-1, 1, 3, 99], "int32"), verbose=0)
    assert (z[[0, 2, 3]] == 0).all()
    assert (z[1] != 0).any()


@pytest.mark.parametrize("index", [[0, 3], np.array([[-1], [0]]), (7,)])
def test_refuses_an_index_out_of_range(index):
    with pytest.raises(ValueError, match=r"in \[0, 3\).*Received: indices from"):
        TaskEmbedding(3, 5)(index)


@pytest.mark.parametrize(
    "task",
    [
        np.zeros(4, "float32"),  # an index of float dtype
        np.zeros((4, 1), "float32"),
        np.zeros((4, 2), "float32"),
        np.eye(3, dtype="int32"),  # a one-hot descriptor of integer dtype
        np.int32(1),
    ],
)
def test_refuses_what_is_neither_index_nor_descriptor(task):
    with pytest.raises(ValueError, match=r"integer index of shape.*Received: task of"):
        TaskEmbedding(3, 5)(ops.convert_to_tensor(task))


def test_refuses_it_when_symbolic_too():
    with pytest.raises(ValueError, match=r"integer index of shape.*Received: task of"):
        TaskEmbedding(3, 5)(keras.Input((3,), dtype="int32"))


@pytest.mark.parametrize("task", [INDEX, INDEX[:, None], SOFT[0]])
def test_the_raw_form_refuses_an_index(task):
    with pytest.raises(ValueError, match=r"an index needs `num_tasks`.*Received"):
        TaskEmbedding()(task)


@pytest.mark.parametrize("num_tasks, dim", [(0, 4), (3, 0), (-1, None)])
def test_refuses_sizes_below_one(num_tasks, dim):
    with pytest.raises(ValueError, match=r"positive integer or None. Received: "):
        TaskEmbedding(num_tasks, dim)


def test_refuses_a_table_without_tasks():
    with pytest.raises(ValueError, match=r"`dim` needs `num_tasks`.*Received: "):
        TaskEmbedding(None, 4)
