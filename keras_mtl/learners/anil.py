"""Almost no inner loop."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.learners.gradient_based import GradientBased, of_each_task


@keras.saving.register_keras_serializable("keras_mtl")
class ANIL(GradientBased):
    """MAML in which only the last layer is adapted.

    Features of all tasks are computed once with shared weights, and the steps are on a
    dense layer after them: a small product for each task. phi is that layer's kernel
    and bias, of each task.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. The steps are on the
            squared error of its mean. Defaults to `"gaussian"`.
        network: A Keras model from examples `(n, ...)` to features `(n, D)`: all but
            the last layer. Defaults to `None`: dense layers.
        hidden: Units of the layers before the last, where no network is given. Defaults
            to `(40, 40)`.
        inner_steps: Integer, number of steps. Defaults to 5.
        inner_rate: Number α. Defaults to `None`: 0.1 for classification, 0.02 for
            regression.
        rates: As of `MAML`. Defaults to `"fixed"`.
        rates_per_step: As of `MAML`. Defaults to `False`.
        first_order: As of `MAML`. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.ANIL(ways=3)
    model = keras_mtl.MetaModel(learner)
    phi = model.adapt(np.eye(3), np.arange(3))
    assert phi["kernel"].shape == (1, 40, 3)
    ```

    Reference:
        Raghu et al., "Rapid Learning or Feature Reuse? Towards Understanding the
        Effectiveness of MAML", ICLR 2020, https://arxiv.org/abs/1909.09157
    """

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        network: keras.Model | None = None,
        hidden: Sequence[int] = (40, 40),
        inner_steps: int = 5,
        inner_rate: float | None = None,
        rates: str = "fixed",
        rates_per_step: bool = False,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
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
            rates,
            rates_per_step,
            first_order,
            **kwargs,
        )
        self.head_kernel = None
        self.head_bias = None

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Builds the network, and the layer that is adapted."""
        example_shape = input_shape["support_x"][2:]
        if self.network is None:
            self.network = keras.Sequential(
                [
                    keras.layers.Dense(
                        units, activation="relu", dtype=self.dtype_policy
                    )
                    for units in self.hidden
                ]
            )
        self.build_network(example_shape, self.output_size)
        features = self.network.compute_output_shape((None, *example_shape))[-1]
        self.head_kernel = self.add_weight(
            shape=(features, self.output_size),
            initializer="glorot_uniform",
            name="head_kernel",
        )
        self.head_bias = self.add_weight(
            shape=(self.output_size,), initializer="zeros", name="head_bias"
        )
        self.build_rates([tuple(self.head_kernel.shape), (self.output_size,)])

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the last layer of each task: `(B, D, output_size)` and a bias."""
        if not self.built:
            self.build({"support_x": tuple(support_x.shape)})
        labels, seen = self.read_labels(support_y, support_mask)
        features = self._features(support_x)
        tasks = ops.shape(support_x)[0]
        start = [of_each_task(v, tasks) for v in (self.head_kernel, self.head_bias)]

        def loss(layer: list[Any]) -> Any:
            raw = _dense(features, *layer)
            return self.support_loss(raw, labels, support_mask)

        kernel, bias = self.descend(start, loss)
        return {"kernel": kernel, "bias": bias, **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        raw = _dense(self._features(query_x), phi["kernel"], phi["bias"])
        return self.answer(raw, phi)

    def _features(self, x: Any) -> Any:
        rows = ops.reshape(x, (-1, *x.shape[2:]))
        features = ops.cast(self.network(rows), "float32")
        return ops.reshape(features, (-1, ops.shape(x)[1], features.shape[-1]))


def _dense(x: Any, kernel: Any, bias: Any) -> Any:
    return ops.matmul(x, kernel) + bias[:, None]
