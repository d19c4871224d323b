"""Fast context adaptation."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.feature_vectors import check_vectors, joined
from keras_mtl.learners.gradient_based import GradientBased


@keras.saving.register_keras_serializable("keras_mtl")
class CAVIA(GradientBased):
    """MAML in which only a context is adapted, that the network has as more inputs.

    $$ c_0 = 0, \\qquad \\hat y = f_\\theta([x; c]), \\qquad
       c_{s+1} = c_s - \\alpha \\nabla_c L(f_\\theta([x; c_s]), D^{tr}) $$

    phi is the context alone, a few numbers for each task, and all tasks share the
    weights.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. The steps are on the
            squared error of its mean. Defaults to `"gaussian"`.
        network: A Keras model from features with the context `(n, D + context)` to
            raw outputs `(n, learner.output_size)`. Defaults to `None`: dense layers.
        hidden: Units of the hidden layers where no network is given. Defaults to
            `(40, 40)`.
        context: Integer, numbers of the context. Defaults to `None`: 5 for regression,
            50 for classification.
        inner_steps: Integer, number of steps. Defaults to 1.
        inner_rate: Number α. Defaults to 1.
        rates: As of `MAML`. Defaults to `"fixed"`.
        rates_per_step: As of `MAML`. Defaults to `False`.
        first_order: As of `MAML`. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.CAVIA(output_dim=1)
    model = keras_mtl.MetaModel(learner)
    x = np.linspace(-1, 1, 10)[:, None]
    assert model.adapt(x, np.sin(x))["context"].shape == (1, 5)
    ```

    Reference:
        Zintgraf et al., "Fast Context Adaptation via Meta-Learning", ICML 2019,
        https://arxiv.org/abs/1810.03642
    """

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        network: keras.Model | None = None,
        hidden: Sequence[int] = (40, 40),
        context: int | None = None,
        inner_steps: int = 1,
        inner_rate: float = 1.0,
        rates: str = "fixed",
        rates_per_step: bool = False,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
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
        if context is None:
            context = 50 if ways else 5
        self.context = check_count("context", context)

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Builds the network on features with the context."""
        features = input_shape["support_x"][-1]
        self.build_network((features + self.context,), self.output_size)
        self.build_rates([(self.context,)])

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the context of each task `(B, context)`."""
        check_vectors(support_x, "support_x")
        if not self.built:
            self.build({"support_x": tuple(support_x.shape)})
        labels, seen = self.read_labels(support_y, support_mask)
        start = ops.zeros((ops.shape(support_x)[0], self.context), "float32")

        def loss(contexts: list[Any]) -> Any:
            raw = self._outputs(contexts[0], support_x)
            return self.support_loss(raw, labels, support_mask)

        return {"context": self.descend([start], loss)[0], **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        return self.answer(self._outputs(phi["context"], query_x), phi)

    def _outputs(self, context: Any, x: Any) -> Any:
        examples = ops.shape(x)[1]
        context = ops.repeat(context[:, None], examples, axis=1)
        inputs = joined(x, context)
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        return ops.reshape(self.network(rows), (-1, examples, self.output_size))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "context": self.context}
