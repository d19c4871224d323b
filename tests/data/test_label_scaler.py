import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_mtl.data import LabelScaler, TaskMixture

SCALES = [1e-10, 1e-3, 1.0, 1e3, 1e10]


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def normal(shape=(1000,), mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(0).normal(size=shape)


def adapted(labels, *adapt_arguments, **arguments):
    scaler = LabelScaler(**arguments)
    scaler.adapt(labels, *adapt_arguments)
    return scaler


class TestStatistics:
    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("method", ["standardize", "robust"])
    def test_scaled_labels_have_unit_scale(self, scale, method):
        labels = normal(mean=7 * scale, scale=scale)
        scaled = numpy(adapted(labels, method=method).scale(labels))
        np.testing.assert_allclose(np.mean(scaled), 0.0, atol=0.1)
        np.testing.assert_allclose(np.std(scaled), 1.0, atol=0.1)

    @pytest.mark.parametrize("scale", SCALES)
    def test_call_undoes_scale(self, scale):
        labels = normal((50, 1), mean=3 * scale, scale=scale)
        scaler = adapted(labels)
        np.testing.assert_allclose(
            numpy(scaler(scaler.scale(labels))), labels, rtol=1e-5, atol=1e-5 * scale
        )

    def test_closed_form(self):
        scaler = adapted([1.0, 3.0])
        np.testing.assert_array_equal(numpy(scaler.scale([1.0, 3.0, 2.0])), [-1, 1, 0])
        np.testing.assert_array_equal(numpy(scaler(np.array([[0.5]]))), [[2.5]])

    def test_columns_are_scaled_each(self):
        labels = normal((1000, 3)) * [1.0, 1e6, 1e-6] + [0.0, 5e6, 1e-6]
        scaled = numpy(adapted(labels).scale(labels))
        np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-4)
        np.testing.assert_allclose(scaled.std(axis=0), 1.0, atol=1e-4)

    def test_one_scale_for_all_values(self):
        images = normal((20, 6, 5)) * np.arange(1, 6)
        scaler = adapted(images, axis=None)
        assert scaler.mean.shape == ()
        np.testing.assert_allclose(numpy(scaler.deviation), images.std(), rtol=1e-5)

    @pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 4), (6, 5, 4)])
    def test_shapes_are_kept(self, shape):
        labels = normal(shape)
        scaler = adapted(labels)
        assert scaler.scale(labels).shape == shape
        assert scaler(scaler.scale(labels)).shape == shape

    @pytest.mark.parametrize("value", [0.0, 0.1, 1e10, -1e-10])
    @pytest.mark.parametrize("method", ["standardize", "robust"])
    def test_labels_that_are_all_the_same(self, value, method):
        labels = np.full(777, value, "float32")
        scaler = adapted(labels, method=method)
        np.testing.assert_array_equal(numpy(scaler.scale(labels)), np.zeros(777))
        np.testing.assert_array_equal(numpy(scaler.deviation), [1.0])

    def test_a_spread_below_float32_counts_as_none(self):
        scaled = numpy(adapted([0.0, 1e-60]).scale([0.0, 1e-60]))
        assert np.all(np.isfinite(scaled))

    def test_differences_of_large_labels_survive(self):
        labels = 1e10 + np.arange(5.0)
        scaled = numpy(adapted(labels).scale(labels))
        np.testing.assert_allclose(np.diff(scaled), 1 / np.sqrt(2), rtol=1e-6)

    def test_adapt_forgets_what_was_before(self):
        scaler = adapted(normal(mean=100.0))
        scaler.adapt([1.0, 3.0])
        np.testing.assert_array_equal(numpy(scaler.mean), [2.0])

    def test_before_adapt_nothing_changes(self):
        values = normal((5, 2)).astype("float32")
        np.testing.assert_array_equal(numpy(LabelScaler()(values)), values)
        np.testing.assert_array_equal(numpy(LabelScaler().scale(values)), values)


class TestMissing:
    def test_nan_mask_value_and_zero_weight_are_left_out(self):
        labels = np.array([1.0, 3.0, np.nan, -1.0, 500.0])
        weight = np.array([1.0, 0.3, 1.0, 1.0, 0.0])
        scaler = adapted(labels, weight, mask_value=-1)
        np.testing.assert_allclose(numpy(scaler.mean), [2.0])
        np.testing.assert_allclose(numpy(scaler.deviation), [1.0])
        np.testing.assert_array_equal(numpy(scaler.count), [2.0])

    @pytest.mark.parametrize("as_tensor", [False, True])
    def test_missing_labels_are_nan_on_the_unit_scale(self, as_tensor):
        labels = np.array([1.0, 3.0, np.nan, -1.0], "float32")
        scaler = adapted(labels, mask_value=-1)
        given = ops.convert_to_tensor(labels) if as_tensor else labels
        np.testing.assert_array_equal(
            numpy(scaler.scale(given)), [-1, 1] + [np.nan] * 2
        )

    def test_integer_labels_with_a_mask_value(self):
        scaler = adapted(np.array([10, 30, -1]), mask_value=-1)
        np.testing.assert_array_equal(numpy(scaler.mean), [20.0])

    @pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2)])
    def test_weights_of_rows_and_of_labels(self, shape):
        labels = np.array([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0], [9.0, 9.0]])
        weight = np.ones(shape)
        weight[2:] = 0
        np.testing.assert_array_equal(numpy(adapted(labels, weight).mean), [2.0, 3.0])

    def test_columns_may_miss_different_rows(self):
        labels = np.array([[1.0, np.nan], [3.0, 10.0], [np.nan, 30.0]])
        np.testing.assert_array_equal(numpy(adapted(labels).mean), [2.0, 20.0])


class Batches(keras.utils.PyDataset):
    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class TestStreams:
    labels = normal((90, 2), mean=4.0, scale=3.0)

    def assert_learnt(self, scaler):
        expected = adapted(self.labels, method=scaler.method)
        for one, other in zip(scaler.weights, expected.weights, strict=True):
            np.testing.assert_allclose(numpy(one), numpy(other), rtol=1e-6)

    @pytest.mark.parametrize("method", ["standardize", "robust"])
    def test_batches_of_labels(self, method):
        parts = np.split(self.labels, [20, 21, 70])
        self.assert_learnt(adapted(Batches(*parts), method=method))

    def test_batches_of_inputs_and_labels(self):
        parts = np.split(self.labels, 3)
        self.assert_learnt(adapted(Batches(*((part * 0, part) for part in parts))))

    def test_the_labels_of_one_task(self):
        scaler = LabelScaler()
        batches = Batches(
            *(
                (part, {"other": part * 0, "this": part}, {"this": np.ones(30)})
                for part in np.split(self.labels, 3)
            )
        )
        scaler.adapt(batches, task="this")
        self.assert_learnt(scaler)

    def test_weights_in_the_stream(self):
        outlier = np.full((5, 2), 1e6)
        batches = Batches((0, self.labels, np.ones(90)), (0, outlier, np.zeros(5)))
        self.assert_learnt(adapted(batches))

    def test_tf_data(self):
        tf = pytest.importorskip("tensorflow")
        dataset = tf.data.Dataset.from_tensor_slices((self.labels * 0, self.labels))
        self.assert_learnt(adapted(dataset.batch(20)))

    def test_a_mixture(self):
        x = np.zeros((40, 2))
        data = {"a": (x, normal((40,), mean=5.0)), "b": (x, normal((40,)))}
        mixture = TaskMixture(data, 8, layout="multi_label", steps_per_epoch=10)
        scaler = LabelScaler()
        scaler.adapt(mixture, task="a")
        np.testing.assert_allclose(numpy(scaler.mean), data["a"][1].mean(), rtol=1e-5)


class TestInAModel:
    def model(self, scaler, loss):
        inputs = keras.Input((2,))
        hours = scaler(keras.layers.Dense(1)(inputs))
        model = keras.Model(inputs, {"hours": hours})
        model.compile(
            keras.optimizers.Adam(0.05), {"hours": loss}, metrics={"hours": ["mae"]}
        )
        return model

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_predictions_and_metrics_are_in_the_users_units(self, scale):
        keras.utils.set_random_seed(1)
        x = normal((256, 2)).astype("float32")
        hours = (scale * (x.sum(axis=1, keepdims=True) + 40)).astype("float32")
        scaler = adapted(hours, name="hours")
        model = self.model(scaler, scaler.loss("mse"))
        history = model.fit(x, {"hours": hours}, epochs=20, verbose=0).history
        # Constant prediction has a loss of one on the unit scale.
        assert 0.3 < history["loss"][0] < 10 and history["loss"][-1] < 0.02
        error = np.abs(model.predict(x, verbose=0)["hours"] - hours).mean()
        reported = model.evaluate(x, {"hours": hours}, verbose=0, return_dict=True)
        mae = next(value for key, value in reported.items() if key.endswith("mae"))
        np.testing.assert_allclose(mae, error, rtol=1e-3)
        assert error < 0.2 * scale

    def test_statistics_are_not_trained_but_saved(self, tmp_path):
        scaler = adapted(normal((50,), mean=40.0, scale=10.0), name="hours")
        model = self.model(scaler, scaler.loss("huber"))
        assert len(model.trainable_variables) == 2
        path = tmp_path / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        x = normal((5, 2)).astype("float32")
        np.testing.assert_allclose(
            loaded.predict(x, verbose=0)["hours"],
            model.predict(x, verbose=0)["hours"],
            rtol=1e-6,
        )
        restored = next(
            layer for layer in loaded.layers if isinstance(layer, LabelScaler)
        )
        assert restored.loss().get_config() == scaler.loss().get_config()
        labels = np.full((5, 1), 60.0)
        np.testing.assert_allclose(
            loaded.evaluate(x, {"hours": labels}, verbose=0),
            model.evaluate(x, {"hours": labels}, verbose=0),
            rtol=1e-5,
        )

    @pytest.mark.slow
    def test_loads_in_a_fresh_process(self, tmp_path):
        scaler = adapted(normal((50, 3), mean=[1.0, 10.0, 100.0]))
        inputs = keras.Input((3,))
        model = keras.Model(inputs, scaler(inputs))
        model.save(tmp_path / "model.keras")
        np.save(tmp_path / "expected.npy", model.predict(np.ones((2, 3)), verbose=0))
        program = (
            "import sys, keras, keras_mtl.data, numpy as np\n"
            "model = keras.models.load_model(sys.argv[1] + '/model.keras')\n"
            "found = model.predict(np.ones((2, 3)), verbose=0)\n"
            "expected = np.load(sys.argv[1] + '/expected.npy')\n"
            "np.testing.assert_allclose(found, expected, rtol=1e-6)\n"
        )
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)

    def test_adapted_to_one_column_it_scales_several_predictions(self, tmp_path):
        scaler = adapted(normal((50,), mean=40.0, scale=10.0))
        inputs = keras.Input((2,))
        quantiles = scaler(keras.layers.Dense(3)(inputs))
        model = keras.Model(inputs, quantiles)
        assert quantiles.shape == (None, 3)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        x = np.ones((1, 2))
        np.testing.assert_array_equal(
            loaded.predict(x, verbose=0), model.predict(x, verbose=0)
        )

    @pytest.mark.parametrize(
        ("policy", "rtol"),
        [("float32", 1e-6), ("mixed_float16", 1e-6), ("mixed_bfloat16", 1e-6)],
    )
    def test_every_policy_computes_in_float32(self, policy, rtol):
        keras.config.set_dtype_policy(policy)
        scaler = adapted([1e6 - 1.0, 1e6 + 1.0])
        inputs = keras.Input((1,))
        head = keras.layers.Dense(1, kernel_initializer="ones")(inputs)
        model = keras.Model(inputs, scaler(head))
        assert model.output.dtype == "float32"
        found = model.predict(np.array([[-1.0], [0.5]]), verbose=0)
        np.testing.assert_allclose(found, [[1e6 - 1], [1e6 + 0.5]], rtol=1e-7)
        for variable in scaler.variables:
            assert variable.dtype == "float32"

    def test_config(self):
        scaler = LabelScaler("robust", axis=None, mask_value=-1.0, name="scaler")
        restored = keras.layers.deserialize(keras.layers.serialize(scaler))
        assert isinstance(restored, LabelScaler)
        assert restored.get_config() == scaler.get_config()

    def test_masks_pass_through(self):
        scaler = adapted([1.0, 3.0])
        inputs = keras.Input((None, 1))
        masked = scaler(keras.layers.Masking()(inputs))
        assert keras.Model(inputs, masked).layers[-1].supports_masking


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"method": "minmax"}, "`method` must be.*Received: method='minmax'"),
            ({"axis": 0}, "`axis` must be -1.*Received: axis=0"),
        ],
    )
    def test_settings(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            LabelScaler(**arguments)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([np.nan, np.nan], r"at least one that is present.*columns \[0\]"),
            ([], r"at least one that is present.*Received"),
            ([[1.0, np.nan], [2.0, np.nan]], r"present.*columns \[1\]"),
            ([1.0, np.inf], "must be finite or NaN. Received: 1 infinite"),
            (3.0, "rows on the first axis.*Received: a single number"),
            ({"a": [1.0]}, r"`task` must name.*\['a'\]. Received: task=None"),
            (Batches(), "at least one label.*Received: a dataset without"),
            (Batches((1, 2, 3, 4)), "Received: a tuple of 4"),
        ],
    )
    def test_labels(self, labels, message):
        with pytest.raises(ValueError, match=message):
            LabelScaler().adapt(labels)

    def test_weights_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"`sample_weight` must.*\(3,\).*\(2,\)"):
            LabelScaler().adapt([1.0, 2.0], sample_weight=np.ones(3))

    def test_weights_beside_a_stream(self):
        with pytest.raises(ValueError, match="`sample_weight` is for arrays"):
            LabelScaler().adapt(Batches(np.ones(3)), sample_weight=np.ones(3))

    def test_other_numbers_of_columns(self):
        scaler = adapted(normal((9, 3)))
        with pytest.raises(ValueError, match=r"built for 3 columns.*Received.*2"):
            scaler.adapt(normal((9, 2)))
        with pytest.raises(ValueError, match=r"knows 3 columns.*\(5, 1\)"):
            scaler(np.ones((5, 1)))

    def test_loss_before_adapt(self):
        with pytest.raises(ValueError, match=r"call `adapt.*Received"):
            LabelScaler().loss()
        built = LabelScaler()
        built(np.ones((2, 1)))
        with pytest.raises(ValueError, match=r"call `adapt.*Received"):
            built.loss()
