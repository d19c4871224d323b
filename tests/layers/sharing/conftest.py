"""Leaves a choice of the tests of sharing layers to the default run."""

import keras
import pytest

_THOROUGH = ("test_layer", "test_jit", "test_half_precision")
"""Of these, which take seconds, the first of a file stays."""

_LONG_TRAINING = (
    "test_a_task_with_few_labels_learns_from_its_relative",
    "test_a_large_factor_makes_tasks_alike_or_of_low_rank",
    "test_dselect_selects_k_experts_at_convergence",
    "test_conversion_is_learned_without_its_bias",
    "test_training_on_the_penalty_makes_subspaces_orthogonal",
)


# Of the others one in so many stays, and of the thorough ones those of one file in so
# many: on JAX every test compiles what it calls.
_OTHERS = {"tensorflow": 4, "torch": 2, "jax": 20}
_FILES = {"tensorflow": 2, "torch": 1, "jax": 4}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the others as slow."""
    backend = keras.backend.backend()
    files, others = [], 0
    for item in items:
        if "layers/sharing" not in item.path.as_posix():
            continue
        name = item.originalname
        if name.startswith(_THOROUGH):
            slow = item.path in files or len(files) % _FILES[backend] > 0
            if item.path not in files:
                files.append(item.path)
        else:
            slow = name in _LONG_TRAINING or others % _OTHERS[backend] > 0
            others += 1
        if slow:
            item.add_marker(pytest.mark.slow)
