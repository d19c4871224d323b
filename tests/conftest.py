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
# every operation on a new shape compiles.
_KEPT = {
    "jax": {
        "tests/aggregation": 3,
        "tests/distributions": 4,
        "tests/losses": 4,
        "tests/metrics": 2,
        "tests/weighting": 3,
        "tests/layers/conditioning": 3,
        "tests/learners/test_every_learner": 2,
        "tests/models/test_keras_features": 2,
        "tests/models/test_meta_model": 2,
        "tests/models/test_missing_labels": 2,
        "tests/models/test_plain_keras_parity": 2,
        "tests/recipes/test_pareto_toy": 5,
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
        "tests/learners/test_every_learner": 2,
        "tests/models/test_keras_features": 2,
        "tests/tuning": 2,
        "tests/tuning/test_sharing_hyper_model": 4,
        "tests/analysis/test_gradient_conflict": 3,
        "tests/analysis/test_task_affinity": 2,
        "tests/analysis/test_transfer_study": 3,
        "tests/layers/sharing": 2,
        "keras_mtl.tuning": 2,
    },
}

# Those that train many networks, each of which is compiled but on PyTorch, where they
# run by default. (The quickstart is run by README's first command as well.)
_COMPILE_MUCH = (
    "tests/analysis/test_transfer_study.py test_what_is_done_is_not_done_again",
    "tests/recipes/test_recipes.py test_quickstart",
    "tests/test_examples.py test_page[docs/searching.md]",
    "tests/test_examples.py test_page[docs/transfer.md]",
    "tests/test_examples.py test_docstring_example[keras_mtl.analysis.transfer_study",
    "tests/tuning/test_conditioning_hyper_model.py test_a_search_finds",
    "tests/tuning/test_search_report.py test_trials_know_when",
    "tests/tuning/test_sharing_hyper_model.py test_any_tuner",
    "tests/tuning/test_sharing_hyper_model.py test_hopeless_trials_are_stopped",
    "tests/tuning/test_sharing_hyper_model.py test_what_diverges",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the others as slow."""
    backend = keras.backend.backend()
    names = [f"{item.path.as_posix()} {item.name}" for item in items]
    slow = {
        index
        for index, name in enumerate(names)
        if backend != "torch" and any(place in name for place in _COMPILE_MUCH)
    }
    for place, kept in _KEPT[backend].items():
        here = [index for index, name in enumerate(names) if place in name]
        slow |= {index for number, index in enumerate(here) if number % kept}
    for index in slow:
        items[index].add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Gives every test the same seed and default settings."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
