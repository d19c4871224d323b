"""Reptile."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.learners.maml import MAML


@keras.saving.register_keras_serializable("keras_mtl")
class Reptile(MAML):
    """Moves the weights towards those that each task's descent ends at.

    $$ \\theta \\leftarrow \\theta + \\epsilon\\, \\text{mean}_i (\\phi_i - \\theta) $$

    In training a descent is on support and queries of the task together, which have no
    different parts here; at test it is on the support. The gradient of θ is
    $\\text{mean}_i (\\theta - \\phi_i)$, without a derivative through the steps: with
    `keras.optimizers.SGD(ε)` it is the paper's update, and any optimiser can be used.
    The loss that is logged is that of the queries after the descent.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. A descent is on the squared
            error, so that the scale of a `"gaussian"` would not be learned. Defaults to
            `None`: plain numbers.
        network: As of `MAML`.
        hidden: As of `MAML`.
        inner_steps: Integer, number of steps. Defaults to 5.
        inner_rate: Number. Defaults to `None`: 0.1 for classification, 0.02 for
            regression.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a distribution is given.

    Example:

    ```python
    learner = keras_mtl.learners.Reptile(output_dim=1)
    model = keras_mtl.MetaModel(learner)
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    ```

    Reference:
        Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", 2018,
        https://arxiv.org/abs/1803.02999
    """

    has_objective = True

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = None,
        network: keras.Model | None = None,
        hidden: Sequence[int] = (40, 40),
        inner_steps: int = 5,
        inner_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        if distribution is not None:
            raise ValueError(
                "Reptile descends on the squared error, which no scale has: "
                "`distribution` must be None. "
                f"Received: distribution={distribution!r}"
            )
        if inner_rate is None:
            inner_rate = 0.1 if ways else 0.02
        super().__init__(
            ways,
            output_dim,
            distribution,
            network,
            hidden,
            inner_steps,
            inner_rate,
            first_order=True,
            **kwargs,
        )

    def objective(
        self, inputs: dict[str, Any], query_y: Any, query_mask: Any, loss: Any
    ) -> Any:
        """Returns the loss of the queries, with the gradient of Reptile.

        Args:
            inputs: As of `call`.
            query_y: Labels of the queries.
            query_mask: Whether each is there `(B, Q)`.
            loss: A function of labels, predictions and weights.
        """
        support_y = inputs["support_y"]
        parts = {
            "x": (inputs["support_x"], inputs["query_x"]),
            "y": (support_y, ops.cast(query_y, support_y.dtype)),
            "mask": (inputs["support_mask"], ops.cast(query_mask, "bool")),
        }
        x, y, mask = (ops.concatenate(pair, axis=1) for pair in parts.values())
        phi = self.adapt(x, y, mask)
        value = ops.stop_gradient(
            loss(query_y, self.predict(phi, inputs["query_x"]), query_mask)
        )
        pull = 0.0
        for variable, adapted in zip(
            self.network.trainable_variables, phi["weights"], strict=True
        ):
            start = ops.convert_to_tensor(variable)
            away = ops.stop_gradient(start - ops.mean(adapted, axis=0))
            pull = pull + ops.sum(start * away)
        return value + pull - ops.stop_gradient(pull)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        for key in ("rates", "rates_per_step", "first_order"):
            del config[key]
        return config
