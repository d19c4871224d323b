"""Lets the tests of aggregators import `reference`, with its asserts explained."""

import keras
import pytest

pytest.register_assert_rewrite("reference")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leaves a sample of the tests to the default run on JAX.

    Outside a compiled step JAX compiles the loop of a solver anew at every call.
    """
    if keras.backend.backend() != "jax":
        return
    here = [item for item in items if "/aggregation/" in item.nodeid]
    for index, item in enumerate(here):
        if index % 16 and "test_gold_values" not in item.nodeid:
            item.add_marker(pytest.mark.slow)
