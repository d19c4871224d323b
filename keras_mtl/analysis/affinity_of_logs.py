"""How much tasks help each other, from the logs of one joint run."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_mtl.argument_checks import check_choice

KINDS = ("look_ahead", "cosine")


def affinity_of_logs(
    logs: Mapping[str, Sequence[float]],
    task_names: Sequence[str],
    kind: str = "look_ahead",
) -> np.ndarray:
    """Returns how much tasks help each other, of a fit with logs of their gradients.

    With the gradients $g_i$ by what tasks share and losses $L_j$, means over epochs of

    $$ Z_{ij} = \\frac{g_i \\cdot g_j}{L_j} \\quad (\\text{"look\\_ahead"}), \\qquad
       Z_{ij} = \\cos(g_i, g_j) \\quad (\\text{"cosine"}) $$

    The first is to first order what part of the loss of task j a step of size 1 along
    the gradient of task i takes away; the second does not depend on how losses are
    scaled. Both are nearly free: the joint run computes the gradients anyway.

    The product is that of means over an epoch, of norms and cosines, as they are in the
    logs.

    Args:
        logs: `history.history` of a `fit` of a model that was compiled with
            `aggregator="sum", gradient_logs=["norms", "cosines"]`.
        task_names: List of T names.
        kind: `"look_ahead"` or `"cosine"`. Defaults to `"look_ahead"`.

    Returns:
        An array `(T, T)` with a diagonal of 0, for `group_tasks` and `rank_trees`.

    Raises:
        ValueError: If the logs lack something.

    Example:

    ```python
    x = keras.Input((4,))
    h = keras.layers.Dense(8, "relu")(x)
    model = keras_mtl.MultiTaskModel(x, {t: keras.layers.Dense(1)(h) for t in "ab"})
    model.compile(
        "adam", loss="mse", aggregator="sum", gradient_logs=["norms", "cosines"]
    )
    data = np.random.default_rng(0).normal(size=(64, 4))
    labels = {"a": data[:, 0], "b": -data[:, 0]}
    logs = model.fit(data, labels, verbose=0).history
    affinity = keras_mtl.analysis.affinity_of_logs(logs, ["a", "b"])
    print(keras_mtl.analysis.group_tasks(affinity, 2, ["a", "b"]))
    ```

    Reference:
        Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning",
        NeurIPS 2021, https://arxiv.org/abs/2109.04617
    """
    check_choice("kind", kind, KINDS)
    tasks = list(task_names)
    pairs = {
        (i, j): f"cosine_{tasks[i]}_{tasks[j]}"
        for i in range(len(tasks))
        for j in range(i + 1, len(tasks))
    }
    needed = list(pairs.values())
    if kind == "look_ahead":
        of_tasks = ("gradient_norm", "loss")
        needed += [f"{task}_{name}" for task in tasks for name in of_tasks]
    missing = [name for name in needed if name not in logs]
    if missing:
        raise ValueError(
            "`logs` must be of a model compiled with an aggregator, such as "
            "aggregator='sum' and gradient_logs=['norms', 'cosines']. "
            f"Received: no {missing}"
        )
    epochs = {name: np.asarray(logs[name], "float64") for name in needed}
    affinity = np.zeros((len(tasks), len(tasks)))
    for (i, j), name in pairs.items():
        both = epochs[name]
        if kind == "look_ahead":
            norms = [epochs[f"{tasks[k]}_gradient_norm"] for k in (i, j)]
            both = both * norms[0] * norms[1]
            losses = [np.maximum(epochs[f"{tasks[k]}_loss"], 1e-12) for k in (i, j)]
            affinity[i, j], affinity[j, i] = (
                np.mean(both / losses[1]),
                np.mean(both / losses[0]),
            )
        else:
            affinity[i, j] = affinity[j, i] = np.mean(both)
    return affinity
