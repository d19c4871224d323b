"""Delta-m: how much better than single-task baselines, averaged over tasks."""

from collections.abc import Iterable

import numpy as np


class RelativeImprovement:
    """Relative improvement over single-task baselines, $\\Delta_m$, in percent.

    $$\\Delta_m = \\frac{100}{K} \\sum_{k=1}^{K} \\frac{1}{M_k} \\sum_{j=1}^{M_k}
    \\sigma_{kj} \\frac{m_{kj} - b_{kj}}{|b_{kj}|}$$

    over `K` tasks with $M_k$ metrics each, where $m$ is the metric of the model, $b$
    that of the baseline, and $\\sigma$ is 1 where a higher value is better and -1
    where a lower one is. Metrics are averaged within a task first, so that tasks
    count alike.

    **Positive is better** (Maninis et al., Vandenhende et al.): `+3` means three
    percent better than the baselines. Nash-MTL, FAMO and much of the literature on
    gradient surgery print the opposite sign, lower is better, and average over all
    metrics instead of over tasks; for their numbers pass each metric as a task of its
    own (the default) and `negative_is_better=True`.

    Args:
        baselines: Dict from the name of a metric to its value in the single-task
            model. Other metrics in the results are left out of account.
        higher_is_better: Dict from the name of a metric to whether a higher value is
            better, for every baseline; or one boolean for all.
        tasks: Dict from the name of a task to the names of its metrics, each metric
            in one task. Defaults to a task for each metric.
        negative_is_better: Whether to turn the sign, as the literature named above.
            Defaults to `False`.

    Call arguments:
        results: Dict from names of metrics to values, as from
            `evaluate(return_dict=True)`.

    Returns:
        A float, in percent.

    Raises:
        ValueError: for a baseline of zero or not finite, or names that do not match.

    Example:

    ```python
    improvement = keras_mtl.metrics.RelativeImprovement(
        baselines={"income_auc": 0.90, "hours_mae": 8.0},
        higher_is_better={"income_auc": True, "hours_mae": False},
    )
    print(improvement({"income_auc": 0.909, "hours_mae": 7.6, "loss": 1.2}))  # 3.0
    ```

    Reference:
        Maninis, Radosavovic and Kokkinos, "Attentive Single-Tasking of Multiple
        Tasks", CVPR 2019, https://arxiv.org/abs/1904.08918
    """

    def __init__(
        self,
        baselines: dict[str, float],
        higher_is_better: dict[str, bool] | bool,
        tasks: dict[str, Iterable[str]] | None = None,
        negative_is_better: bool = False,
    ):
        if not baselines:
            raise ValueError(
                f"`baselines` must have at least one metric. Received: {baselines}"
            )
        unusable = {
            name: value
            for name, value in baselines.items()
            if not np.isfinite(value) or value == 0
        }
        if unusable:
            raise ValueError(
                "`baselines` must be finite and not zero, since improvement is "
                f"relative to them. Received: {unusable}"
            )
        if isinstance(higher_is_better, bool):
            higher_is_better = dict.fromkeys(baselines, higher_is_better)
        undecided = [name for name in baselines if name not in higher_is_better]
        if undecided:
            raise ValueError(
                "`higher_is_better` must say it of every baseline. "
                f"Received: nothing about {undecided}"
            )
        if tasks is None:
            tasks = {name: [name] for name in baselines}
        tasks = {task: list(names) for task, names in tasks.items()}
        named = sorted(name for names in tasks.values() for name in names)
        if named != sorted(baselines) or not all(tasks.values()):
            raise ValueError(
                "`tasks` must hold every baseline in one task, and no other metric. "
                f"Received: {tasks} for baselines {sorted(baselines)}"
            )
        self._baselines = dict(baselines)
        self._signs = {
            name: (1.0 if higher_is_better[name] else -1.0)
            * (-1.0 if negative_is_better else 1.0)
            for name in baselines
        }
        self._tasks = tasks

    @property
    def baselines(self) -> dict[str, float]:
        """The baseline of each metric."""
        return dict(self._baselines)

    def __call__(self, results: dict[str, float]) -> float:
        """The mean improvement over the tasks, in percent."""
        return float(np.mean(list(self.per_task(results).values())))

    def per_task(self, results: dict[str, float]) -> dict[str, float]:
        """The improvement of each task, the mean over its metrics, in percent.

        Args:
            results: As for the call.

        Returns:
            Dict from task to a float.
        """
        metrics = self.per_metric(results)
        return {
            task: float(np.mean([metrics[name] for name in names]))
            for task, names in self._tasks.items()
        }

    def per_metric(self, results: dict[str, float]) -> dict[str, float]:
        """The improvement of each metric, in percent.

        Args:
            results: As for the call.

        Returns:
            Dict from metric to a float.

        Raises:
            ValueError: if a metric of the baselines is not among the results.
        """
        missing = [name for name in self._baselines if name not in results]
        if missing:
            raise ValueError(
                "`results` must have every metric of the baselines. "
                f"Received: {sorted(results)}, without {missing}"
            )
        return {
            name: self._signs[name]
            * 100.0
            * (float(results[name]) - baseline)
            / abs(baseline)
            for name, baseline in self._baselines.items()
        }
