"""From task losses to the objective: the user's weights around a weighting."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl import engine
from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.weighting.weighting import Weighting


class TaskObjective(keras.layers.Layer):
    """Holds what turns task losses into one objective, and can exchange it.

    $$ L = \\sum_k \\lambda_k \\tilde L_k $$

    with the losses as the weighting returns them and the weights lambda of the
    user, which are a variable: they may be changed while training.

    It is a layer of its own since a built model may not be given new layers,
    while `compile` may bring another weighting at any time. Its list of parts
    may change, so that the old parts' variables leave the model.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dtype="float32", name="task_objective", **kwargs)
        self.parts = []
        # Never built by Keras, which would close the list of parts.
        self.built = True

    def set(
        self,
        task_names: Sequence[str],
        loss_weights: Sequence[float],
        weighting: Weighting,
        aggregator: Aggregator | None = None,
    ) -> None:
        """Replaces the parts by those of a new `compile`."""
        scale = LossWeights(len(task_names))
        scale.build()
        scale.values.assign(list(loss_weights))
        weighting.set_task_names(task_names)
        if not weighting.built:
            weighting.build((len(task_names),))
        elif weighting.num_tasks != len(task_names):
            raise ValueError(
                f"`weighting` was built for {weighting.num_tasks} tasks, but the "
                f"model is compiled for {len(task_names)}: {list(task_names)}. Pass "
                f"a new one. Received: weighting={weighting!r}"
            )
        weighting.snapshot = engine.snapshot
        self.parts.clear()
        self.parts.extend([scale, weighting])
        if aggregator is not None:
            self.parts.append(aggregator)

    @property
    def weighting(self) -> Weighting | None:
        """The weighting in force, or None before `set`."""
        return self.parts[1] if self.parts else None

    @property
    def aggregator(self) -> Aggregator | None:
        """The aggregator in force, if there is one."""
        return self.parts[2] if len(self.parts) > 2 else None

    @property
    def loss_weights(self) -> keras.Variable | None:
        """The user's weights `(T,)`, or None before `set`."""
        return self.parts[0].values if self.parts else None

    def call(self, losses: Any, present: Any, training: bool = False) -> Any:
        """Returns the weighted losses and the weights in force, each `(T,)`."""
        # Not `__call__`: all is built and float32, and it costs 0.2 ms on PyTorch.
        weighted, weights = self.weighting.call(
            losses, present, training=training, return_weights=True
        )
        scale = ops.convert_to_tensor(self.loss_weights)
        return scale * weighted, scale * weights


class LossWeights(keras.layers.Layer):
    """The user's weights of the tasks, a variable of shape `(T,)`."""

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", name="loss_weights", **kwargs)
        self.num_tasks = num_tasks

    def build(self) -> None:
        """Creates the variable."""
        self.values = self.add_weight(
            name="values", shape=(self.num_tasks,), initializer="ones", trainable=False
        )
        self.built = True
