"""What every test needs before Keras is imported, and reproducible seeds."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# What is compiled here runs once or twice, and is not worth optimising.
if os.environ["KERAS_BACKEND"] == "jax":
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    )

if os.environ["KERAS_BACKEND"] == "torch":
    import torch  # noqa: F401  before TensorFlow: the other order can crash

import keras
import pytest

# Of the tests of functions that are the same on all backends, one in so many is left to
# the default run of a backend, and most on PyTorch, where they are quickest. On JAX
# every operation on a new shape compiles. Of those with None, none are.
_KEPT = {
    "jax": {
        "tests/aggregation": 3,
        "tests/distributions": 4,
        "tests/losses": 4,
        "tests/metrics": 2,
        "tests/weighting": 3,
        "tests/layers/conditioning": 3,
        "tests/models/test_meta_model": 2,
        "tests/models/test_plain_keras_parity": 2,
        "tests/recipes/test_pareto_toy": 5,
        "tests/recipes/test_recipes.py test_quickstart": None,
        "tests/layers/sharing": 2,
        "tests/test_examples.py test_page": 3,
        "tests/tuning": 8,
        "tests/analysis/test_gradient_conflict": 6,
        "tests/analysis/test_task_affinity": 4,
        "tests/analysis/test_transfer_study": 5,
        "keras_mtl.learners": 3,
        "keras_mtl.tuning": 4,
    },
    "torch": {"tests/aggregation": 2, "tests/distributions": 2},
    "tensorflow": {
        "tests/aggregation": 2,
        "tests/distributions": 2,
        "tests/weighting": 2,
        "tests/layers/conditioning": 2,
        "tests/tuning": 2,
        "tests/tuning/test_sharing_hyper_model": 4,
        "tests/analysis/test_gradient_conflict": 3,
        "tests/analysis/test_task_affinity": 2,
        "tests/analysis/test_transfer_study": 3,
        "tests/layers/sharing": 2,
        "keras_mtl.tuning": 2,
    },
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the others as slow."""
    for place, kept in _KEPT.get(keras.backend.backend(), {}).items():
        here = [
            item for item in items if place in f"{item.path.as_posix()} {item.name}"
        ]
        for index, item in enumerate(here):
            if kept is None or index % kept:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Gives every test the same seed and default settings."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
