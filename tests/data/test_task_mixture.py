import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.data import TaskMixture

BACKEND = keras.backend.backend()


def task_data(rows, columns=3, seed=0, offset=0, weights=False):
    """Inputs whose first column says which row it is; labels repeat it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)).astype("float32")
    x[:, 0] = offset + np.arange(rows)
    y = x[:, :1].copy()
    if weights:
        return x, y, 1.0 + np.arange(rows, dtype="float32")
    return x, y


def two_tasks(**arguments):
    data = {"small": task_data(30), "large": task_data(400, offset=1000)}
    return TaskMixture(data, **{"batch_size": 20, **arguments})


def assert_same(first, second):
    keras.tree.assert_same_structure(first, second)
    for one, other in zip(
        keras.tree.flatten(first), keras.tree.flatten(second), strict=True
    ):
        np.testing.assert_array_equal(one, other)


class TestSampling:
    def test_tasks_count_alike_whatever_their_sizes(self):
        mixture = two_tasks()
        for inputs, _ in mixture:
            assert np.bincount(inputs["task"]).tolist() == [10, 10]

    def test_proportional_makes_points_count_alike(self):
        mixture = two_tasks(sampling="proportional", steps_per_epoch=430)
        visits = np.concatenate([inputs["x"][:, 0] for inputs, _ in mixture])
        np.testing.assert_allclose(mixture.probabilities["small"], 30 / 430, rtol=1e-12)
        _, counts = np.unique(visits, return_counts=True)
        # 20 passes in all, give or take the rounding of each batch.
        assert len(counts) == 430 and counts.min() >= 18 and counts.max() <= 22

    @pytest.mark.parametrize(
        ("sampling", "share"),
        [
            ("uniform", 0.5),
            (float("inf"), 0.5),
            ("proportional", 0.1),
            (1, 0.1),
            (2.0, 0.25),
        ],
    )
    def test_temperature(self, sampling, share):
        data = {"a": task_data(10), "b": task_data(90)}
        for mixture in (
            TaskMixture(data, 16, sampling=sampling),
            TaskMixture(data, 16).with_sampling(sampling),
        ):
            np.testing.assert_allclose(mixture.probabilities["a"], share)

    def test_temperature_of_huge_and_tiny_tasks(self):
        stream = FiniteStream(2, 5)
        mixture = TaskMixture(
            {"a": stream, "b": task_data(1)},
            4,
            sampling=0.01,
            sizes={"a": 10**10},
            steps_per_epoch=2,
        )
        assert mixture.probabilities["a"] == 1.0

    def test_points_are_visited_without_replacement(self):
        mixture = two_tasks(steps_per_epoch=3)
        seen = []
        for epoch in range(4):
            mixture.set_epoch(epoch)
            seen += [
                int(row)
                for inputs, _ in mixture
                for row in inputs["x"][inputs["task"] == 0, 0]
            ]
        assert len(seen) == 120
        # Three batches of ten rows make one pass.
        for begin in range(0, 120, 30):
            assert sorted(seen[begin : begin + 30]) == list(range(30))

    def test_tasks_per_batch(self):
        data = {name: task_data(40, offset=100 * i) for i, name in enumerate("abcde")}
        mixture = TaskMixture(data, 12, tasks_per_batch=3)
        present = np.zeros(5)
        for inputs, _ in mixture:
            counts = np.bincount(inputs["task"], minlength=5)
            assert sorted(counts) == [0, 0, 4, 4, 4]
            present += counts > 0
        assert present.min() > 0

    def test_default_epoch_has_as_many_rows_as_there_are_points(self):
        assert len(two_tasks()) == 22  # 430 points, 20 rows
        assert len(two_tasks(steps_per_epoch=7)) == 7


class TestDeterminism:
    def test_batches_do_not_depend_on_what_was_read_before(self):
        expected = list(two_tasks())
        mixture = two_tasks()
        for index in (21, 3, 0, 3):
            assert_same(mixture[index], expected[index])

    @pytest.mark.parametrize("layout", ["task_index", "multi_label", "per_task"])
    def test_threads_read_the_same_batches(self, layout):
        expected = list(two_tasks(layout=layout))
        mixture = two_tasks(layout=layout)
        with ThreadPoolExecutor(8) as pool:
            batches = list(pool.map(mixture.__getitem__, range(len(mixture))))
        for batch, wanted in zip(batches, expected, strict=True):
            assert_same(batch, wanted)

    def test_workers_make_the_same_batches(self):
        expected = two_tasks()
        mixture = two_tasks(workers=3, max_queue_size=4)
        for epoch in range(3):
            expected.set_epoch(epoch)
            mixture.set_epoch(epoch)
            for batch, wanted in zip(mixture, expected, strict=True):
                assert_same(batch, wanted)

    def test_seed_and_epoch_make_other_batches(self):
        first = two_tasks()[0][1]
        assert not np.array_equal(first, two_tasks(seed=1)[0][1])
        later = two_tasks()
        later.set_epoch(1)
        assert not np.array_equal(first, later[0][1])

    def test_rows_of_a_batch_are_mixed(self):
        index = two_tasks()[0][0]["task"]
        assert 1 < np.count_nonzero(np.diff(index)) < 19

    def test_a_pickled_mixture_makes_the_same_batches(self):
        mixture = two_tasks(workers=2)
        mixture.set_epoch(2)
        copy = pickle.loads(pickle.dumps(mixture))
        assert_same(copy[5], mixture[5])

    def test_global_random_numbers_are_left_alone(self):
        before = random.getstate()
        two_tasks()[0]
        assert random.getstate() == before


class TestTaskIndexLayout:
    def test_every_row_keeps_its_label_and_its_task(self):
        for inputs, y in two_tasks():
            np.testing.assert_array_equal(inputs["x"][:, :1], y)
            np.testing.assert_array_equal(inputs["task"], y[:, 0] >= 1000)
            assert inputs["task"].dtype == np.int32

    def test_inputs_that_are_a_dict_keep_their_keys(self):
        x, y = task_data(40)
        nested = {"wide": x, "deep": {"ids": np.arange(40)}}
        inputs, _ = TaskMixture({"a": (nested, y)}, 8, task_input="which")[0]
        assert set(inputs) == {"wide", "deep", "which"}
        np.testing.assert_array_equal(inputs["wide"][:, 0], inputs["deep"]["ids"])

    def test_weights_are_one_where_a_task_has_none(self):
        data = {"a": task_data(20, weights=True), "b": task_data(20, offset=50)}
        inputs, y, weight = TaskMixture(data, 8)[0]
        expected = np.where(inputs["task"] == 0, y[:, 0] + 1, 1.0)
        np.testing.assert_array_equal(weight, expected)

    def test_integer_labels_stay_integers(self):
        x, _ = task_data(10)
        big = np.full(10, 2**24 + 1)
        _, y = TaskMixture({"a": (x, big), "b": (x, big)}, 4)[0]
        assert y.dtype.kind == "i" and np.all(y == 2**24 + 1)

    def test_integers_beside_floats_become_floats(self):
        x, _ = task_data(10)
        data = {"a": (x, np.full(10, 7)), "b": (x, np.full(10, 0.5))}
        inputs, y = TaskMixture(data, 4)[0]
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, np.where(inputs["task"] == 0, 7, 0.5))

    @pytest.mark.parametrize("shape", [(), (1,), (2, 5), (4, 4, 3)])
    def test_labels_of_any_rank(self, shape):
        x, _ = task_data(10)
        _, y = TaskMixture({"a": (x, np.zeros((10, *shape)))}, 4)[0]
        assert y.shape == (4, *shape)


class TestMultiLabelLayout:
    def test_labels_are_nan_for_all_tasks_but_the_own(self):
        for x, y in two_tasks(layout="multi_label"):
            own = x[:, :1] >= 1000
            np.testing.assert_array_equal(np.isnan(y["small"]), own)
            np.testing.assert_array_equal(np.isnan(y["large"]), ~own)
            np.testing.assert_array_equal(
                np.where(own, y["large"], y["small"]), x[:, :1]
            )

    def test_weights_are_zero_off_task(self):
        data = {"a": task_data(20, weights=True), "b": task_data(20, offset=50)}
        x, _, weight = TaskMixture(data, 8, layout="multi_label")[0]
        own = x[:, 0] < 50
        np.testing.assert_array_equal(weight["a"], np.where(own, x[:, 0] + 1, 0))
        np.testing.assert_array_equal(weight["b"], np.where(own, 0, 1))

    @pytest.mark.parametrize("value", [0, 3, 2**24, -(2**24)])
    def test_integer_labels_are_exact(self, value):
        x, _ = task_data(10)
        data = {"a": (x, np.full(10, value)), "b": (x, np.zeros(10))}
        _, y = TaskMixture(data, 4, layout="multi_label")[0]
        assert set(y["a"][~np.isnan(y["a"])].tolist()) == {float(value)}

    @pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1])
    def test_integer_labels_that_would_be_rounded_are_refused(self, value):
        x, _ = task_data(10)
        with pytest.raises(ValueError, match=f"task 'a'.*Received.*{abs(value)}"):
            TaskMixture({"a": (x, np.full(10, value))}, 4, layout="multi_label")

    def test_labels_of_tasks_may_differ_in_shape(self):
        x, y = task_data(10)
        data = {"a": (x, y), "b": (x, np.ones((10, 2, 2)))}
        _, labels = TaskMixture(data, 4, layout="multi_label")[0]
        assert labels["a"].shape == (4, 1) and labels["b"].shape == (4, 2, 2)


class TestPerTaskLayout:
    def mixture(self, **arguments):
        x, y = task_data(60, columns=5, offset=1000)
        data = {
            "flat": task_data(20),
            "deep": ({"rows": x, "ids": np.arange(60)}, y[:, 0].astype("int64")),
        }
        return TaskMixture(data, **{"batch_size": 8, "layout": "per_task", **arguments})

    def test_each_task_has_inputs_of_its_own(self):
        for x, y in self.mixture():
            assert x["flat"].shape == (4, 3) and x["deep"]["rows"].shape == (4, 5)
            np.testing.assert_array_equal(x["flat"][:, :1], y["flat"])
            np.testing.assert_array_equal(x["deep"]["rows"][:, 0], y["deep"])
            assert y["deep"].dtype == np.int64

    def test_rows_follow_the_shares(self):
        x, _ = self.mixture(sampling="proportional")[0]
        assert len(x["flat"]) == 2 and len(x["deep"]["rows"]) == 6

    def test_absent_tasks_are_zeros_without_labels(self):
        absences = []
        for x, y in self.mixture(tasks_per_batch=1, steps_per_epoch=40):
            assert x["flat"].shape == (4, 3) and y["deep"].shape == (4,)
            assert y["deep"].dtype == np.float32
            flat_absent = bool(np.all(np.isnan(y["flat"])))
            assert flat_absent != bool(np.all(np.isnan(y["deep"])))
            absent = x["flat"] if flat_absent else x["deep"]["rows"]
            assert not absent.any()
            absences.append(flat_absent)
        assert 8 < sum(absences) < 32

    def test_absent_tasks_have_no_weight(self):
        data = {"a": task_data(20, weights=True), "b": task_data(20)}
        mixture = TaskMixture(data, 4, layout="per_task", tasks_per_batch=1)
        for _, y, weight in mixture:
            for task in data:
                absent = np.isnan(y[task][:, 0])
                np.testing.assert_array_equal(weight[task] == 0, absent)


@pytest.mark.parametrize("layout", ["task_index", "multi_label", "per_task"])
@pytest.mark.parametrize("tasks_per_batch", [None, 2])
def test_all_batches_have_one_signature(layout, tasks_per_batch):
    data = {
        name: task_data(10 * (i + 1), weights=i == 1) for i, name in enumerate("abc")
    }
    mixture = TaskMixture(
        data, 7, sampling=2.0, layout=layout, tasks_per_batch=tasks_per_batch
    )
    signatures = {
        tuple((leaf.shape, str(leaf.dtype)) for leaf in keras.tree.flatten(batch))
        for batch in mixture
    }
    assert len(signatures) == 1


class FiniteStream(keras.utils.PyDataset):
    """Batches of numbered rows, and how often it was told of an epoch's end."""

    def __init__(self, batches, rows, offset=0):
        super().__init__()
        self.batches, self.rows, self.offset, self.ends = batches, rows, offset, 0

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        x = np.zeros((self.rows, 3), "float32")
        x[:, 0] = self.offset + index * self.rows + np.arange(self.rows)
        return x, x[:, :1]

    def on_epoch_end(self):
        self.ends += 1


class EndlessStream(FiniteStream):
    num_batches = None


class TestStreams:
    def rows_of(self, mixture, task):
        return [
            row
            for inputs, _ in mixture
            for row in np.sort(inputs["x"][inputs["task"] == task, 0])
        ]

    def test_rows_come_in_the_order_of_the_stream_and_begin_again(self):
        stream = FiniteStream(3, 4)
        mixture = TaskMixture(
            {"a": stream, "b": task_data(50, offset=100)}, 12, steps_per_epoch=4
        )
        assert self.rows_of(mixture, 0) == [*range(12), *range(12)]
        assert mixture.sizes == {"a": 12, "b": 50}
        assert stream.ends == 1

    def test_an_endless_stream_needs_the_number_of_steps(self):
        data = {"a": EndlessStream(None, 4)}
        with pytest.raises(ValueError, match=r"steps_per_epoch=None.*Received.*'a'"):
            TaskMixture(data, 4)
        mixture = TaskMixture(data, 4, steps_per_epoch=3)
        assert self.rows_of(mixture, 0) == list(range(12))
        assert len(TaskMixture(data, 4, sizes={"a": 40})) == 10

    def test_workers_keep_the_order(self):
        mixture = TaskMixture(
            {"a": FiniteStream(50, 4)}, 4, steps_per_epoch=50, workers=4
        )
        assert self.rows_of(mixture, 0) == list(range(200))

    def test_one_batch_at_a_time_is_in_memory(self):
        stream = FiniteStream(10**9, 4)
        mixture = TaskMixture({"a": stream}, 4, steps_per_epoch=2)
        assert mixture.sizes == {"a": 4 * 10**9}
        assert self.rows_of(mixture, 0) == list(range(8))

    def test_tf_data(self):
        tf = pytest.importorskip("tensorflow")
        x, y = task_data(12)
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
        mixture = TaskMixture({"a": dataset}, 6, sizes={"a": 12}, steps_per_epoch=4)
        assert self.rows_of(mixture, 0) == [*range(12), *range(12)]
        assert TaskMixture({"a": dataset}, 6).sizes == {"a": 15}

    def test_tf_data_must_be_batched(self):
        tf = pytest.importorskip("tensorflow")
        points = tf.data.Dataset.from_tensor_slices((np.zeros((8, 3)), np.zeros(8)))
        with pytest.raises(ValueError, match=r"call `.batch"):
            TaskMixture({"a": points}, 4)

    @pytest.mark.slow
    def test_tensorflow_is_not_imported_for_arrays(self):
        if BACKEND == "tensorflow":
            pytest.skip("this backend imports TensorFlow")
        program = (
            "import sys, numpy as np\n"
            "from keras_mtl.data import TaskMixture\n"
            "TaskMixture({'a': (np.zeros((4, 2)), np.zeros(4))}, 2)[0]\n"
            "assert 'tensorflow' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_an_empty_stream_is_refused(self):
        with pytest.raises(ValueError, match=r"Task 'a'.*at least one point"):
            TaskMixture({"a": FiniteStream(0, 4)}, 4)

    def test_a_stream_of_other_things_is_refused(self):
        class OnlyInputs(FiniteStream):
            def __getitem__(self, index):
                return super().__getitem__(index)[0]

        with pytest.raises(ValueError, match="task 'a' must be a tuple"):
            TaskMixture({"a": OnlyInputs(2, 4)}, 4)


class BatchNumbers(keras.callbacks.Callback):
    """Reads off the losses which batches `fit` trained on."""

    def on_train_begin(self, logs=None):
        self.numbers = []

    def on_epoch_begin(self, epoch, logs=None):
        self.sum = 0.0

    def on_train_batch_end(self, batch, logs=None):
        total = logs["loss"] * (batch + 1)
        self.numbers.append(round(float(total - self.sum)))
        self.sum = total


class Numbered(TaskMixture):
    """Writes epoch and index of the batch into the first input."""

    def __getitem__(self, index):
        inputs, y = super().__getitem__(index)
        inputs["x"][:, 0] = 100 * self.epoch + index
        return inputs, y


def linear_model(**arguments):
    x = keras.Input((3,), name="x")
    task = keras.Input((), dtype="int32", name="task")
    # The oldest Keras admits no input that leads nowhere.
    nothing = 0.0 * ops.expand_dims(ops.cast(task, "float32"), -1)
    output = keras.layers.Dense(1, **arguments)(x) + nothing
    return keras.Model({"x": x, "task": task}, output)


def echo_model():
    """Outputs its first input, and never learns."""
    model = linear_model(use_bias=False)
    model.set_weights([np.eye(3, 1)])
    model.compile(keras.optimizers.SGD(0.0), lambda y_true, y_pred: y_pred)
    return model


def numbered(**arguments):
    data = {"small": task_data(30), "large": task_data(400)}
    return Numbered(data, 20, steps_per_epoch=6, **arguments)


def numbers_of(epochs):
    return [100 * epoch + step for epoch in epochs for step in range(6)]


class TestFit:
    def losses(self, mixture, epochs=3, **arguments):
        recorder = BatchNumbers()
        callbacks = [recorder, *arguments.pop("callbacks", [])]
        echo_model().fit(
            mixture,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
            **arguments,
        )
        return recorder.numbers

    @pytest.mark.parametrize("workers", [1, 3])
    def test_epochs_are_counted(self, workers):
        numbers = self.losses(numbered(workers=workers))
        assert numbers == numbers_of([0, 1, 2])

    def test_epochs_are_counted_from_fit_to_fit(self):
        mixture = numbered()
        self.losses(mixture, epochs=2)
        assert self.losses(mixture, epochs=2) == numbers_of([2, 3])

    @pytest.mark.parametrize("workers", [1, 3])
    def test_training_resumes_at_an_epoch(self, workers):
        mixture = numbered(workers=workers)
        numbers = self.losses(
            mixture,
            epochs=5,
            initial_epoch=3,
            callbacks=[mixture.follow_epochs()],
        )
        assert numbers == numbers_of([3, 4])

    def test_set_epoch_resumes_too(self):
        mixture = numbered()
        mixture.set_epoch(3)
        assert self.losses(mixture, epochs=2) == numbers_of([3, 4])

    def test_fit_takes_every_batch_once_when_it_shuffles(self):
        recorder = BatchNumbers()
        echo_model().fit(numbered(), verbose=0, callbacks=[recorder])
        assert sorted(recorder.numbers) == numbers_of([0])

    def test_backup_and_restore_goes_on_as_if_nothing_happened(self, tmp_path):
        class Killed(Exception):
            pass

        class Kill(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2:
                    raise Killed

        def train(*callbacks):
            keras.utils.set_random_seed(0)
            mixture = two_tasks(steps_per_epoch=6)
            model = linear_model()
            model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mae")
            model.fit(
                mixture,
                epochs=4,
                shuffle=False,
                verbose=0,
                callbacks=[mixture.follow_epochs(), *callbacks],
            )
            return model.get_weights()

        whole = train()
        backup = str(tmp_path / "backup")
        with pytest.raises(Killed):
            train(keras.callbacks.BackupAndRestore(backup), Kill())
        resumed = train(keras.callbacks.BackupAndRestore(backup))
        for one, other in zip(whole, resumed, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_conditioned_model_learns_both_tasks(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(400, 2)).astype("float32")
        data = {"up": (x[:40], x[:40, :1]), "down": (x, -x[:, :1])}
        mixture = TaskMixture(data, 32, steps_per_epoch=60)
        inputs = keras.Input((2,), name="x")
        task = keras.Input((), dtype="int32", name="task")
        kernel = keras.layers.Embedding(2, 2)(task)
        output = ops.sum(inputs * kernel, axis=-1, keepdims=True)
        model = keras.Model({"x": inputs, "task": task}, output)
        model.compile(keras.optimizers.Adam(0.05), "mse")
        history = model.fit(mixture, epochs=2, verbose=0)
        assert history.history["loss"][-1] < 0.01

    def test_multi_label_trains_heads_on_their_own_rows(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(300, 2)).astype("float32")
        data = {"sum": (x[:50], x[:50].sum(1)), "difference": (x, x[:, 0] - x[:, 1])}
        mixture = TaskMixture(data, 32, layout="multi_label", steps_per_epoch=60)

        def masked_mse(y_true, y_pred):
            y_true = ops.reshape(y_true, ops.shape(y_pred))
            present = ops.logical_not(ops.isnan(y_true))
            error = ops.where(present, y_true, y_pred) - y_pred
            return ops.mean(ops.square(error), axis=-1)

        inputs = keras.Input((2,))
        heads = {name: keras.layers.Dense(1, name=name)(inputs) for name in data}
        model = keras.Model(inputs, heads)
        model.compile(keras.optimizers.Adam(0.05), {name: masked_mse for name in data})
        history = model.fit(mixture, epochs=2, verbose=0)
        assert history.history["loss"][-1] < 0.01

    def test_per_task_trains_on_inputs_of_differing_shape(self):
        rng = np.random.default_rng(0)
        narrow = rng.normal(size=(60, 2)).astype("float32")
        wide = rng.normal(size=(300, 5)).astype("float32")
        data = {"a": (narrow, narrow.sum(1)), "b": (wide, wide.sum(1))}
        mixture = TaskMixture(data, 32, layout="per_task", steps_per_epoch=60)
        inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((5,), name="b")}
        outputs = {
            name: keras.layers.Dense(1, name=f"{name}_head")(value)
            for name, value in inputs.items()
        }
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.Adam(0.05), {"a": "mse", "b": "mse"})
        history = model.fit(mixture, epochs=2, verbose=0)
        assert history.history["loss"][-1] < 0.02


class TestErrors:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({}, "`data` must be a dict.*Received: {}"),
            ([task_data(4)], "`data` must be a dict.*Received: list"),
            ({1: task_data(4)}, r"names must be strings.*Received: \[1\]"),
            ({"": task_data(4)}, "names must be strings.*Received"),
            ({"a": task_data(0)}, "Task 'a' must have at least one.*Received"),
            ({"a": task_data(4)[0]}, "task 'a' must be a tuple.*Received: ndarray"),
            ({"a": task_data(4)[:1]}, "task 'a' must be a tuple.*Received: tuple of 1"),
            (
                {"a": (np.zeros((4, 2)), np.zeros(3))},
                "task 'a' must have the same number of rows.*'x': 4, 'y': 3",
            ),
            (
                {"a": (np.zeros((4, 2)), np.zeros(4), np.zeros(3))},
                "same number of rows.*'sample_weight': 3",
            ),
            (
                {"a": ({"u": np.zeros(4), "v": np.zeros(5)}, np.zeros(4))},
                r"same number of rows.*x\['v'\]",
            ),
            ({"a": (np.zeros(4), 3.0)}, "rows on the first axis.*Received: y"),
            ({"a": (np.zeros(2), np.array(["u", "v"]))}, "y of task 'a' must hold num"),
        ],
    )
    def test_data(self, data, message):
        with pytest.raises(ValueError, match=message):
            TaskMixture(data, 4)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"batch_size": 0}, "`batch_size`.*Received: batch_size=0"),
            ({"batch_size": 2.0}, "`batch_size`.*Received: batch_size=2.0"),
            ({"batch_size": 1}, "at least 2, a row for each.*`tasks_per_batch`"),
            ({"batch_size": 1, "layout": "per_task"}, "at least 2.*batch_size=1"),
            (
                {"batch_size": 1, "layout": "per_task", "tasks_per_batch": 1},
                "at least 2.*batch_size=1",
            ),
            ({"sampling": "even"}, "`sampling`.*Received: sampling='even'"),
            ({"sampling": 0.0}, "`sampling`.*Received: sampling=0.0"),
            ({"sampling": float("nan")}, "`sampling`.*Received: sampling=nan"),
            ({"sampling": True}, "`sampling`.*Received: sampling=True"),
            ({"tasks_per_batch": 3}, "at most the number of tasks, 2.*Received"),
            ({"tasks_per_batch": 0}, "`tasks_per_batch`.*Received"),
            ({"layout": "rows"}, "`layout` must be one of.*Received: layout='rows'"),
            ({"seed": -1}, "`seed`.*Received: seed=-1"),
            ({"seed": None}, "`seed`.*Received: seed=None"),
            ({"steps_per_epoch": 0}, "`steps_per_epoch`.*Received"),
            ({"task_input": ""}, "`task_input`.*Received"),
            ({"workers": 0}, "`workers`.*Received"),
            ({"max_queue_size": 0}, "`max_queue_size`.*Received"),
            ({"sizes": {"c": 3}}, r"`sizes` must name tasks.*Received: \['c'\]"),
            ({"sizes": {"small": 3}}, "the size of arrays is known.*Received"),
            ({"sizes": {"small": 0}}, r"sizes\['small'\].*at least 1.*Received"),
        ],
    )
    def test_settings(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            two_tasks(**arguments)

    @pytest.mark.parametrize("layout", ["task_index", "multi_label"])
    def test_inputs_of_differing_shapes_cannot_be_mixed(self, layout):
        data = {"a": task_data(4, columns=2), "b": task_data(4, columns=3)}
        with pytest.raises(ValueError, match=r"per_task.*Received.*\(2,\).*\(3,\)"):
            TaskMixture(data, 2, layout=layout)

    def test_inputs_of_differing_structure_cannot_be_mixed(self):
        x, y = task_data(4)
        with pytest.raises(ValueError, match="same structure and shapes"):
            TaskMixture({"a": (x, y), "b": ({"u": x}, y)}, 2)

    def test_labels_of_differing_shapes_cannot_be_mixed(self):
        x, y = task_data(4)
        with pytest.raises(ValueError, match="labels must have the same shape"):
            TaskMixture({"a": (x, y), "b": (x, y[:, 0])}, 2)

    def test_weights_of_differing_shapes_cannot_be_mixed(self):
        x, y = task_data(4)
        data = {"a": (x, y, np.ones(4)), "b": (x, y, np.ones((4, 1)))}
        with pytest.raises(ValueError, match="weights of all tasks must"):
            TaskMixture(data, 2)

    def test_the_task_needs_a_name_of_its_own(self):
        x, y = task_data(4)
        with pytest.raises(ValueError, match=r"must not be a key.*task_input='task'"):
            TaskMixture({"a": ({"task": x}, y)}, 2)

    def test_inputs_in_a_tuple_have_no_names(self):
        x, y = task_data(4)
        with pytest.raises(ValueError, match=r"array or a dict.*Received.*tuple"):
            TaskMixture({"a": ((x, x), y)}, 2)

    @pytest.mark.parametrize("index", [-1, 22])
    def test_index_out_of_range(self, index):
        with pytest.raises(IndexError, match=f"0 to 21. Received: index={index}"):
            two_tasks()[index]

    @pytest.mark.parametrize("epoch", [-1, 1.5])
    def test_epoch(self, epoch):
        with pytest.raises(ValueError, match=f"`epoch`.*Received: epoch={epoch}"):
            two_tasks().set_epoch(epoch)
