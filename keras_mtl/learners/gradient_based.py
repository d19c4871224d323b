"""What learners that take gradient steps on the support have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_count, check_number
from keras_mtl.engine.differentiation import gradients
from keras_mtl.learners.class_probabilities import ABSENT
from keras_mtl.learners.feature_vectors import multi_layer_perceptron
from keras_mtl.learners.learner import Learner

RATES = ("fixed", "shared", "parameter")


class GradientBased(Learner):
    """Steps of gradient descent on the loss of the support.

    $$ \\phi_{s+1} = \\phi_s - \\alpha \\nabla_\\phi L(\\phi_s, D^{tr}) $$

    with the cross-entropy of the labels, or for regression the squared error of the
    numbers, or of the means of the distributions.

    Args:
        ways: As of `Learner`.
        output_dim: As of `Learner`.
        distribution: As of `Learner`.
        network: A Keras model from examples `(n, ...)` to raw outputs
            `(n, output_size)`, or `None`.
        hidden: Units of the hidden layers of a network of dense layers, where none
            is given.
        inner_steps: Integer, number of steps.
        inner_rate: Number α.
        rates: `"fixed"`; `"shared"`: one α is learned; `"parameter"`: one for each
            number that is adapted is.
        rates_per_step: Boolean, whether learned rates differ from step to step.
        first_order: Boolean, whether derivatives of gradients are left out.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    ignores_order = True

    def __init__(
        self,
        ways: int | None,
        output_dim: int | None,
        distribution: Any,
        network: keras.Model | None,
        hidden: Sequence[int],
        inner_steps: int,
        inner_rate: float,
        rates: str = "fixed",
        rates_per_step: bool = False,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.hidden = [check_count("hidden", units) for units in hidden]
        self.inner_steps = check_count("inner_steps", inner_steps)
        self.inner_rate = check_number("inner_rate", inner_rate, above=0)
        self.rates = check_choice("rates", rates, RATES)
        self.rates_per_step = rates_per_step
        self.first_order = first_order
        self._given_network = network
        self.network = network
        self.rate_variables: list[keras.Variable] = []
        self._checked_answers()

    def build_network(self, example_shape: Sequence[int | None], units: int) -> None:
        """Builds the network on examples of this shape, unless it is built.

        Args:
            example_shape: Shape of one example.
            units: Units of the last layer of a network of dense layers.
        """
        if self.network is None:
            self.network = multi_layer_perceptron(
                [*self.hidden, units], dtype=self.dtype_policy
            )
        if not self.network.built:
            self.network.build((None, *example_shape))

    def build_rates(self, shapes: list[tuple[int, ...]]) -> None:
        """Creates what is learned of the rates of parameters of these shapes."""
        if self.rates == "fixed":
            return
        steps = (self.inner_steps if self.rates_per_step else 1,)
        shared = self.rates == "shared"
        for index, shape in enumerate([()] if shared else shapes):
            self.rate_variables.append(
                self.add_weight(
                    shape=(*steps, *shape),
                    initializer=keras.initializers.Constant(self.inner_rate),
                    name=f"rate_{index}",
                )
            )

    def descend(
        self, parameters: list[Any], loss: Callable[[list[Any]], Any]
    ) -> list[Any]:
        """Returns the parameters after the steps.

        Args:
            parameters: Of each task, tensors `(B, ...)`.
            loss: The sum over tasks of the loss of each.
        """
        for step in range(self.inner_steps):
            slopes = gradients(loss, parameters)
            if self.first_order:
                slopes = [ops.stop_gradient(slope) for slope in slopes]
            parameters = [
                parameter - self._rate(step, index) * slope
                for index, (parameter, slope) in enumerate(
                    zip(parameters, slopes, strict=True)
                )
            ]
        return parameters

    def support_loss(self, raw: Any, labels: Any, support_mask: Any) -> Any:
        """Returns the sum over tasks of the mean loss of the examples of each.

        Args:
            raw: Raw outputs `(B, S, output_size)`.
            labels: What `read_labels` returned `(B, S, label_size)`.
            support_mask: Whether each example is there `(B, S)`.
        """
        raw = ops.cast(raw, "float32")
        mask = ops.cast(support_mask, "float32")
        if self.ways:
            there = ops.max(labels, axis=1)[:, None]  # B, 1, ways
            logits = ops.where(there > 0, raw, ABSENT)
            each = -ops.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)
        else:
            error = ops.where(mask[..., None] > 0, self.means(raw) - labels, 0.0)
            each = ops.mean(error**2, axis=-1)
        counts = ops.maximum(ops.sum(mask, axis=1), 1.0)
        return ops.sum(ops.sum(mask * each, axis=1) / counts)

    def means(self, raw: Any) -> Any:
        """Returns the numbers, or the means of distributions `(B, S, Dy)`."""
        predicted = self.answer(raw, {})
        if self.distribution is None:
            return predicted
        return self.distribution.mean(predicted)

    def _rate(self, step: int, index: int) -> Any:
        if self.rates == "fixed":
            return self.inner_rate
        variable = self.rate_variables[0 if self.rates == "shared" else index]
        return variable[step if self.rates_per_step else 0]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self._given_network),
            "hidden": self.hidden,
            "inner_steps": self.inner_steps,
            "inner_rate": self.inner_rate,
            "rates": self.rates,
            "rates_per_step": self.rates_per_step,
            "first_order": self.first_order,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientBased":
        """Returns the learner of `get_config`."""
        config = dict(config)
        for key in ("network", "distribution"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)


def of_each_task(value: Any, tasks: Any) -> Any:
    """Returns `(B, ...)`: the same for each of B tasks."""
    value = ops.convert_to_tensor(value)
    return ops.broadcast_to(value[None], (tasks, *value.shape))
