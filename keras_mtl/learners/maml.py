"""Model-agnostic meta-learning."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.learners.gradient_based import GradientBased, of_each_task
from keras_mtl.learners.networks_of_tasks import call_with_weights
from keras_mtl.learners.patch_convolution import PatchConv2D


@keras.saving.register_keras_serializable("keras_mtl")
class MAML(GradientBased):
    """Weights from which a few steps of gradient descent learn a new task.

    $$ \\phi = \\theta - \\alpha \\nabla_\\theta L(\\theta, D^{tr}), \\qquad
       \\min_\\theta \\sum_i L(\\phi_i, D_i^{ts}) $$

    and so for more steps. All weights of the network are adapted, and phi is the
    weights of every task. The outer gradient goes through the steps (second order),
    unless `first_order`.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. The steps are on the
            squared error of its mean. Defaults to `"gaussian"`.
        network: A Keras model from examples `(n, ...)` to raw outputs
            `(n, learner.output_size)`, such as convolutions with a dense layer; it must
            have no layers that change in training. `PatchConv2D` is the convolution
            that is fast on CPUs; others must be `channels_first` on PyTorch. Defaults
            to `None`: dense layers.
        hidden: Units of the hidden layers where no network is given. Defaults to
            `(40, 40)`.
        inner_steps: Integer, number of steps. Defaults to 1.
        inner_rate: Number α. Defaults to `None`: 0.4 for classification, 0.01 for
            regression.
        rates: `"fixed"`; `"shared"`: α is learned; `"parameter"`: one for each weight
            is (Meta-SGD). Defaults to `"fixed"`.
        rates_per_step: Boolean, whether learned rates differ from step to step
            (MAML++). Defaults to `False`.
        first_order: Boolean, whether derivatives of gradients are left out, which
            saves time and memory. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.MAML(output_dim=1)
    model = keras_mtl.MetaModel(learner)
    x = np.linspace(-1, 1, 10)[:, None]
    phi = model.adapt(x, np.sin(x))
    assert model.predict_query(phi, x).shape == (10, 1, 2)  # mean and scale
    ```

    Reference:
        Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of
        Deep Networks", ICML 2017, https://arxiv.org/abs/1703.03400; Li et al.,
        "Meta-SGD", 2017, https://arxiv.org/abs/1707.09835; Antoniou, Edwards and
        Storkey, "How to train your MAML", ICLR 2019, https://arxiv.org/abs/1810.09502
    """

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        network: keras.Model | None = None,
        hidden: Sequence[int] = (40, 40),
        inner_steps: int = 1,
        inner_rate: float | None = None,
        rates: str = "fixed",
        rates_per_step: bool = False,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
        if inner_rate is None:
            inner_rate = 0.4 if ways else 0.01
        super().__init__(
            ways,
            output_dim,
            distribution,
            network,
            hidden,
            inner_steps,
            inner_rate,
            rates,
            rates_per_step,
            first_order,
            **kwargs,
        )

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Builds the network on examples of the support."""
        _check_convolutions(self._given_network)
        self.build_network(input_shape["support_x"][2:], self.output_size)
        self.build_rates([tuple(v.shape) for v in self.network.trainable_variables])

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the weights of each task, `(B, ...)`."""
        if not self.built:
            self.build({"support_x": tuple(support_x.shape)})
        labels, seen = self.read_labels(support_y, support_mask)
        tasks = ops.shape(support_x)[0]
        start = [of_each_task(v, tasks) for v in self.network.trainable_variables]

        def loss(weights: list[Any]) -> Any:
            raw = call_with_weights(self.network, weights, support_x)
            return self.support_loss(raw, labels, support_mask)

        return {"weights": self.descend(start, loss), **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        raw = call_with_weights(self.network, phi["weights"], query_x)
        return self.answer(raw, phi)


def _check_convolutions(network: keras.Model | None) -> None:
    """Keras on PyTorch asks for a memory format that `vmap` does not know."""
    if keras.backend.backend() != "torch":
        return
    for layer in getattr(network, "layers", []):
        if (
            "Conv" in type(layer).__name__
            and not isinstance(layer, PatchConv2D)
            and getattr(layer, "data_format", None) == "channels_last"
        ):
            raise ValueError(
                "On PyTorch convolutions of a network whose weights are adapted must "
                "have data_format='channels_first', or be `PatchConv2D`. Received: "
                f"layer '{layer.name}' with 'channels_last'"
            )
