"""Leaves a sample of the steps with an aggregator to the default run on JAX."""

import keras
import pytest

_FILES = ("test_aggregation", "test_representation")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the others as slow: there every model of a test compiles a step."""
    if keras.backend.backend() != "jax":
        return
    here = [item for item in items if item.path.stem.startswith(_FILES)]
    for index, item in enumerate(here):
        if index % 8:
            item.add_marker(pytest.mark.slow)
