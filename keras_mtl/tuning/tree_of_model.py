"""The sharing tree of a model."""

from typing import Any

from keras_mtl.tuning.sharing_tree import SharingTree


def sharing_tree(model: Any) -> SharingTree:
    """Returns which tasks of a model share what.

    Of a model that `SharingHyperModel` or `SharingPlan` has built, its tree over
    blocks; `model.sharing_plan` also says how groups are linked. Of any other
    `MultiTaskModel`, such as one that was loaded from a file, what its graph says: a
    level for every set of tasks on the way from input to output that layers with
    parameters serve, heads included.

    Args:
        model: A `MultiTaskModel`.

    Returns:
        A `SharingTree`: print it, `to_dict()` it, or `plot` it.

    Raises:
        ValueError: If the tasks of its layers overlap without one set being in the
            other, which no tree has.

    Example:

    ```python
    x = keras.Input((4,))
    h = keras.layers.Dense(8, "relu")(x)
    outputs = {task: keras.layers.Dense(1)(h) for task in ("a", "b")}
    tree = keras_mtl.tuning.sharing_tree(keras_mtl.MultiTaskModel(x, outputs))
    print(tree)
    # block 0: a + b
    # block 1: a | b
    ```
    """
    plan = getattr(model, "sharing_plan", None)
    if plan is not None:
        return plan.tree
    rows = model.sharing_summary(print_fn=lambda line: None)
    served = [set(row.tasks) for row in rows if row.tasks and row.kind != "stacked"]
    tasks = list(model.task_names)
    served += [{task} for task in tasks]
    for one in served:
        for other in served:
            if one & other and not (one <= other or other <= one):
                raise ValueError(
                    "`model` must share by a tree: these layers serve tasks that "
                    f"overlap. Received: {sorted(one)} and {sorted(other)}"
                )
    chains = {
        task: sorted({frozenset(s) for s in served if task in s}, key=len, reverse=True)
        for task in tasks
    }
    depth = max(map(len, chains.values()))
    levels = []
    for level in range(depth):
        of_task = [chain[min(level, len(chain) - 1)] for chain in chains.values()]
        levels.append(
            [tuple(t for t in tasks if t in s) for s in dict.fromkeys(of_task)]
        )
    return SharingTree(levels)
