"""What every test needs before Keras is imported, and reproducible seeds."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if os.environ["KERAS_BACKEND"] == "torch":
    import torch  # noqa: F401  before TensorFlow: the other order can crash

import keras
import pytest


@pytest.fixture(autouse=True)
def fresh_keras():
    """Gives every test the same seed and default settings."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
