"""Checks of the arguments that all loaders share."""

from collections.abc import Sequence

from keras_mtl.datasets.data_directory import PublicFile


def check_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    """Raises unless `tasks` are names, each once, of the known ones."""
    names = [] if isinstance(tasks, str) else list(tasks)
    if not names or not set(names) <= set(known) or len(set(names)) < len(names):
        raise ValueError(
            f"`tasks` must be names, each once, of {list(known)}. "
            f"Received: tasks={tasks!r}"
        )


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raises unless both are positive and leave rows for training."""
    fractions = (validation_fraction, test_fraction)
    if min(fractions) <= 0 or sum(fractions) >= 1:
        raise ValueError(
            "`validation_fraction` and `test_fraction` must be positive and leave "
            "something to train on. Received: validation_fraction="
            f"{validation_fraction}, test_fraction={test_fraction}"
        )


def public_file(
    default: PublicFile, data_url: str | None, sha256: str | None
) -> PublicFile:
    """The publisher's file, or the one that the user names instead."""
    if data_url is None and sha256 is None:
        return default
    return PublicFile(
        default.url if data_url is None else data_url, sha256, default.other_names
    )
