"""On several devices a model trains as on one."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_models import (
    IN_A_GRAPH,
    assert_close,
    compiled,
    copy_weights,
    data,
    two_tasks,
)
from weightings_for_tests import GradientNorms, InverseMean

import keras_mtl

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras trains on one PyTorch process"
)
ROWS = 64
WEIGHTINGS = {
    "equal": lambda: "equal",
    "inverse_mean": InverseMean,
    "uncertainty": lambda: "uncertainty",
    "dwa": lambda: "dwa",
    "grad_norm": lambda: "grad_norm",
    "gradient_norms": GradientNorms,
    "famo": lambda: "famo",
}
AGGREGATORS = {
    "upgrad": lambda: {"aggregator": "upgrad"},
    "db_mtl": lambda: {"aggregator": "db_mtl"},
    "at_representation": lambda: {
        "aggregator": "upgrad",
        "aggregate_at": "representation",
        "gradient_logs": True,
    },
    "in_chunks": lambda: {"aggregator": "upgrad", "chunk_size": 1},
    "every_k_steps": lambda: {
        "aggregator": keras_mtl.aggregation.EveryKSteps("upgrad", 2)
    },
}
"""Trained with in place of a weighting."""
METHODS = [*WEIGHTINGS, *AGGREGATORS]


def labels():
    """Of the first task, the replicas have 2, 16, 0 and 9 labels of 16 rows."""
    x, y = data(ROWS)
    missing = np.ones(ROWS, bool)
    missing[[1, 2]] = False
    missing[16:32] = False
    missing[48:57] = False
    y["a"][missing] = np.nan
    return x, y


def build(method):
    keras.utils.set_random_seed(2)
    model = two_tasks(
        extra=[keras.layers.Dense(8, "tanh")], regularizer=keras.regularizers.L2(0.01)
    )
    return compiled(
        model,
        optimizer=keras.optimizers.SGD(0.1, momentum=0.5),
        loss={"a": "mse", "b": keras.losses.BinaryCrossentropy(reduction="sum")},
        loss_weights={"b": 0.02},
        metrics={"a": "mae", "b": "auc"},
        weighting=WEIGHTINGS[method]() if method in WEIGHTINGS else None,
        **(AGGREGATORS[method]() if method in AGGREGATORS else {}),
        **IN_A_GRAPH,
    )


def trained(method):
    """History, evaluation and all variables after training."""
    model = build(method)
    x, y = labels()
    weight = {"b": np.linspace(0.1, 2, ROWS).astype("float32")}
    kwargs = {"batch_size": 32, "verbose": 0}
    history = model.fit(
        x, y, sample_weight=weight, epochs=2, shuffle=False, **kwargs
    ).history
    logs = model.evaluate(x, y, return_dict=True, **kwargs)
    values = [keras.ops.convert_to_numpy(v) for v in model.variables]
    return {**{k: v[-1] for k, v in history.items()}, **logs}, values


def train_on_two_devices(path):
    """Trains on two devices with every method; run in a new process."""
    results = {}

    def run():
        for name in METHODS:
            logs, values = trained(name)
            for key, value in logs.items():
                results[f"{name}/logs/{key}"] = value
            for index, value in enumerate(values):
                results[f"{name}/{index:03}"] = value

    if BACKEND == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert strategy.num_replicas_in_sync == 2
        with strategy.scope():
            run()
    else:
        devices = keras.distribution.list_devices()
        assert len(devices) == 2
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=devices)
        )
        run()
    np.savez(path, **results)


@pytest.fixture(scope="module")
def on_two_devices(tmp_path_factory):
    path = tmp_path_factory.mktemp("devices") / "results.npz"
    here = pathlib.Path(__file__).parent
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, test_distribution as t; t.train_on_two_devices(sys.argv[1])",
            str(path),
        ],
        check=True,
        env={
            **os.environ,
            "KERAS_BACKEND": BACKEND,
            "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
    )
    return np.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_devices_train_as_one(on_two_devices, method):
    logs, values = trained(method)
    names = [n for n in on_two_devices.files if n.startswith(f"{method}/")]
    their_logs = {n.split("/")[-1]: on_two_devices[n] for n in names if "/logs/" in n}
    assert_close(logs, their_logs, 1e-5)
    theirs = [on_two_devices[n] for n in sorted(names) if "/logs/" not in n]
    assert_close(values, theirs, 1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the strategy of TensorFlow")
def test_a_strategy_of_one_replica_trains_as_none():
    import tensorflow as tf

    x, y = labels()
    one = build("inverse_mean")
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        other = build("inverse_mean")
        copy_weights(one, other)
        other.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    one.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert_close(
        *[[keras.ops.convert_to_numpy(v) for v in m.variables] for m in (one, other)]
    )
