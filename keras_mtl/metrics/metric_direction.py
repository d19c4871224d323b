"""Whether more of a metric is better."""

from collections.abc import Mapping

_LOWER = {"mse", "mae", "rmse", "mape", "msle"}
_HIGHER = {"acc", "auc", "precision", "recall"}


def is_higher_better(
    name: str, task: str, given: Mapping[str, bool] | None = None
) -> bool:
    """Returns whether a higher value of a metric is better, by its name.

    Args:
        name: Name of the metric in the logs, without `val_`.
        task: Name of the task that it belongs to.
        given: Dict by metric of what is known already.

    Raises:
        ValueError: If neither the dict nor the name says it.
    """
    if given is not None and name in given:
        return bool(given[name])
    metric = name.removeprefix(f"{task}_")
    if metric == "loss" or metric.endswith("_error") or metric in _LOWER:
        return False
    if metric.endswith("accuracy") or metric in _HIGHER:
        return True
    raise ValueError(
        "`higher_is_better` must say it of every metric but losses, errors, "
        f"accuracies, AUC, precision and recall. Received: nothing about {name!r}"
    )
