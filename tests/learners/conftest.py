"""Leaves a choice of the tests of learners to the default run."""

import keras
import pytest

# Which compile and train: of these, on each backend, those of one learner in so many.
_THOROUGH = ("test_half_precision", "test_a_loaded_model_adapts_alike")
_KEPT_THOROUGH = {"tensorflow": 8, "torch": 3, "jax": 24}
_KEPT_OTHERS = {"tensorflow": 3, "torch": 1, "jax": 8}
_KEPT = {"tensorflow": 3, "torch": 2, "jax": 10}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the others as slow; which are left differs from test to test."""
    backend = keras.backend.backend()
    counts = {}
    others = 0
    for item in items:
        if "tests/learners" not in item.path.as_posix():
            continue
        if item.path.name != "test_every_learner.py":
            others += 1
            if others % _KEPT_OTHERS[backend]:
                item.add_marker(pytest.mark.slow)
            continue
        name = item.originalname
        kept = _KEPT_THOROUGH if name in _THOROUGH else _KEPT
        place = counts[name] = counts.get(name, len(counts)) + 1
        if place % kept[backend]:
            item.add_marker(pytest.mark.slow)
