"""The base of aggregators that go round another."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.gramian_aggregator import GramianAggregator
from keras_mtl.aggregation.registry import get


class AggregatorWrapper(GramianAggregator):
    """An aggregator that changes what another is given, or what it returns.

    Args:
        aggregator: The other aggregator, or its name.
    """

    gramian_only: bool = False
    """Whether the other must be a `GramianAggregator`."""

    def __init__(self, aggregator: str | Aggregator, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.aggregator = get(aggregator)
        if self.gramian_only and not self.aggregator.is_gramian:
            raise ValueError(
                f"{type(self).__name__} goes round aggregators that give weights. "
                f"Received: aggregator={self.aggregator!r}, which has none"
            )

    @property
    def is_gramian(self) -> bool:
        """Whether the other needs no more than the Gramian."""
        return self.aggregator.is_gramian

    @property
    def needs_losses(self) -> bool:
        """Whether `losses` must be given."""
        return self.aggregator.needs_losses

    @property
    def keeps_gradients(self) -> bool:
        """Whether the other keeps any."""
        return self.aggregator.keeps_gradients

    def set_task_names(self, task_names: Sequence[str]) -> None:
        """Tells both aggregators the tasks."""
        super().set_task_names(task_names)
        self.aggregator.set_task_names(task_names)

    def build_parts(
        self, num_tasks: int, shapes: Sequence[tuple[int, ...]] = ()
    ) -> None:
        """Creates the state of both."""
        self.num_tasks = num_tasks
        if not self.aggregator.built:
            self.aggregator.build_parts(num_tasks, shapes)
        self.build_state(shapes)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        aggregator = keras.saving.serialize_keras_object(self.aggregator)
        return {**super().get_config(), "aggregator": aggregator}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AggregatorWrapper":
        """Makes the wrapper and what it goes round."""
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(config.pop("aggregator"))
        return cls(inner, **config)
