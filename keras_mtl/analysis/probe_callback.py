"""What callbacks that measure gradients have in common."""

from typing import Any

import keras
import numpy as np

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.engine.gradient_probe import GradientProbe
from keras_mtl.models import MultiTaskModel
from keras_mtl.models.sharing import SharedLayer


class ProbeCallback(keras.callbacks.Callback):
    """Has every n-th training step of a `MultiTaskModel` measured, inside the step.

    Args:
        every: Integer, n.
        fraction: Float in (0, 1] or `None`, the part of a batch that is looked at.
    """

    def __init__(self, every: int, fraction: float | None) -> None:
        super().__init__()
        self.every = check_count("every", every)
        if fraction is not None:
            check_number("fraction", fraction, above=0, at_most=1)
        self.fraction = fraction
        self.task_names: list[str] = []
        self.layers: list[SharedLayer] = []
        self.epochs: list[int] = []
        self.history: list[Any] = []
        self._sums: list[list[np.ndarray]] = []
        self._probe: GradientProbe | None = None

    @property
    def total(self) -> Any:
        """Means over all epochs so far.

        Raises:
            ValueError: Before the end of the first epoch.
        """
        if not self._sums:
            raise ValueError("Nothing is measured before the end of the first epoch.")
        return self._means([sum(parts) for parts in zip(*self._sums, strict=True)])

    def set_model(self, model: Any) -> None:
        """Checks what kind of model is trained."""
        if not isinstance(model, MultiTaskModel):
            raise TypeError(
                f"{type(self).__name__} measures a `MultiTaskModel` under `fit`. "
                f"Received: {type(model).__name__}"
            )
        super().set_model(model)

    def make_gradient_probe(self, model: MultiTaskModel) -> GradientProbe:
        """Returns what the training step of a model measures.

        Raises:
            ValueError: If the model shares nothing, trains on several replicas, or has
                modules of PyTorch.
        """
        strategy = getattr(model, "distribute_strategy", None)
        replicas = getattr(strategy, "num_replicas_in_sync", 1)
        if replicas > 1:
            raise ValueError(
                f"{type(self).__name__} measures on one replica: train without a "
                f"distribution strategy. Received: {replicas} replicas"
            )
        modules = [
            layer.name
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.TorchModuleWrapper)
        ]
        if modules:
            raise ValueError(
                f"{type(self).__name__} runs the model without a trace, which modules "
                f"of PyTorch do not let it. Received: {modules}"
            )
        self.task_names = model.task_names
        self.layers = model.shared_layers()
        if not self.layers:
            raise ValueError(
                f"{type(self).__name__} compares gradients by what tasks share. "
                f"Received: a model whose tasks {self.task_names} share no trainable "
                "variable"
            )
        fraction = self.fraction
        if fraction is None:
            # What every tenth step takes is to be no more than 8 % of the time of
            # training, of which a step is three forward passes.
            fraction = min(1.0, 0.08 * max(self.every, 10) * 3 / self._passes())
            if _takes_whole_batches(model):
                fraction = 1.0
        self.epochs, self.history, self._sums = [], [], []
        self._probe = self._make_probe(fraction)
        return self._probe

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks that the model knows of this callback."""
        if self._probe is None:
            raise ValueError(
                f"{type(self).__name__} must be given to `fit` in `callbacks`."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes what the steps of the epoch have added up."""
        _ = self.model  # On JAX this brings variables up to date.
        sums = [
            np.array(keras.ops.convert_to_numpy(variable), "float64")
            for variable in self._probe.sums
        ]
        if not self._probe.is_used:
            raise ValueError(
                f"{type(self).__name__} measures in the training step of "
                "`MultiTaskModel`. Received: a model whose `train_step` does not call "
                "it"
            )
        self._probe.clear()
        self.epochs.append(epoch)
        self.history.append(self._means(sums))
        self._sums.append(sums)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Lets go of the training."""
        self._probe = None

    def _passes(self) -> float:
        """Returns what a measurement takes on average, in forward passes.

        That is one, and a backward pass, as much as two, for each task.
        """
        return 1 + 2 * len(self.task_names)

    def _make_probe(self, fraction: float) -> GradientProbe:
        raise NotImplementedError

    def _means(self, sums: list[np.ndarray]) -> Any:
        """Returns the means that sums over steps are of."""
        raise NotImplementedError


def _takes_whole_batches(model: MultiTaskModel) -> bool:
    """Whether a part of a batch is no batch for it: sparse inputs, states by row."""
    inputs = getattr(model, "inputs", None) or []
    return any(getattr(tensor, "sparse", False) for tensor in inputs) or any(
        getattr(layer, "stateful", False) for layer in model._flatten_layers()
    )
