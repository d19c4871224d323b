"""Meta networks."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.class_probabilities import ABSENT
from keras_mtl.learners.cosine import unit_vectors
from keras_mtl.learners.feature_vectors import check_vectors, multi_layer_perceptron
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.support_sequence import in_front

_PRECISION = 7.0


@keras.saving.register_keras_serializable("keras_mtl")
class MetaNetwork(Learner):
    """Makes fast weights of the gradients that the support has at slow weights.

    A base learner, $\\text{relu}(W_1 x)$ and a last layer $W_2$, answers each example
    of the support with its slow weights. A network G, the same for every coordinate,
    turns the gradient of that example's loss into fast weights; they are kept in a
    memory, by a key of the example. A query reads the memory by the similarity of keys,
    and is answered with both weights:

    $$ h = \\text{relu}(W_1 x) + \\text{relu}(W_1^+ x), \\qquad
       \\hat y = W_2 h + W_2^+ h, \\qquad
       W^+ = \\sum_i a_i G(\\nabla_W L_i), \\qquad
       G(g) = \\text{MLP}(\\log |g|, \\text{sign}\\, g) - \\alpha g $$

    The weights a are a softmax of cosine similarities times a learned number, which
    starts at the paper's 1. The paper's G has no step of plain descent at a learned
    rate α; the logarithm alone tells sizes of errors badly, which labels that are
    numbers need.

    Keys are made likewise: of slow weights, and of fast ones that an LSTM over the
    first gradients of the support makes for the task (of the loss of $W_2$ on keys).
    Layers are dense, so that gradients are products of two vectors and nothing is
    differentiated twice.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted; gradients are those of the
            squared error of the first raw number of each output. Defaults to
            `"gaussian"`.
        hidden: Integer, units of the base learner, and the size of a key. Defaults to
            32.
        num_gradients: Integer, examples whose gradients make fast weights of keys.
            Defaults to 5.
        maker_units: Integer, units of G and of the LSTM. Defaults to 8.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model = keras_mtl.MetaModel(keras_mtl.learners.MetaNetwork(ways=3))
    phi = model.adapt(np.eye(3), np.arange(3))
    assert model.predict_query(phi, np.eye(3)).shape == (3, 3)
    ```

    Reference:
        Munkhdalai and Yu, "Meta Networks", ICML 2017,
        https://arxiv.org/abs/1703.00837; gradients as inputs: Andrychowicz et al.,
        "Learning to learn by gradient descent by gradient descent", NeurIPS 2016,
        https://arxiv.org/abs/1606.04474
    """

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        hidden: int = 32,
        num_gradients: int = 5,
        maker_units: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.hidden = check_count("hidden", hidden)
        self.num_gradients = check_count("num_gradients", num_gradients)
        self.maker_units = check_count("maker_units", maker_units)
        dtype = self.dtype_policy
        self.first = keras.layers.Dense(hidden, dtype=dtype)
        self.last = keras.layers.Dense(self.output_size, dtype=dtype)
        self.key = keras.layers.Dense(hidden, dtype=dtype)
        self.make_first = multi_layer_perceptron([maker_units, 1], dtype=dtype)
        # A bias would be the same for the logits of all classes, and change nothing.
        self.make_last = multi_layer_perceptron(
            [maker_units, 1], dtype=dtype, last_bias=False
        )
        self.over_gradients = keras.layers.LSTM(maker_units, dtype=dtype)
        self.make_key = keras.layers.Dense(1, dtype=dtype)
        self.rates = [
            self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(0.1),
                name=f"{layer}_rate",
            )
            for layer in ("first", "last")
        ]
        self.log_sharpness = self.add_weight(
            shape=(),
            initializer="zeros",
            name="log_sharpness",
        )

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Builds the dense layers, whose kernels are read."""
        features = input_shape["support_x"][-1]
        self.first.build((None, features))
        self.last.build((None, self.hidden))
        self.key.build((None, features))

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the memory: keys of each example, and its fast weights."""
        check_vectors(support_x, "support_x")
        if not self.built:
            self.build({"support_x": tuple(support_x.shape)})
        labels, seen = self.read_labels(support_y, support_mask)
        mask, x, labels = in_front(support_mask, support_x, labels)
        x = ops.cast(x, "float32")
        hidden = ops.cast(ops.relu(self.first(x)), "float32")
        wrong = self._derivative(self.last(hidden), labels)
        of_hidden = ops.matmul(wrong, ops.transpose(self._kernel(self.last)))
        of_hidden = of_hidden * ops.cast(hidden > 0, "float32")
        fast_key = self._fast_key(x, labels, mask)
        return {
            "keys": self._keys(x, fast_key),
            "fast_key": fast_key,
            "first": self._made(self.make_first, self.rates[0], x, of_hidden),
            "last": self._made(self.make_last, self.rates[1], hidden, wrong),
            "mask": mask,
            **seen,
        }

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        query_x = ops.cast(query_x, "float32")
        scores = ops.matmul(
            unit_vectors(self._keys(query_x, phi["fast_key"])),
            ops.transpose(unit_vectors(phi["keys"]), (0, 2, 1)),
        )
        there = ops.cast(phi["mask"], "bool")[:, None]
        scores = ops.where(there, ops.exp(self.log_sharpness) * scores, ABSENT)
        attention = ops.softmax(scores, axis=-1)  # B, Q, S
        # What the fast weights of each example say, and then their mean: a query has
        # no weights of its own to be kept.
        each = ops.einsum("bqd,bsdh->bqsh", query_x, phi["first"])
        fast = ops.einsum("bqs,bqsh->bqh", attention, each)
        hidden = ops.cast(ops.relu(self.first(query_x)), "float32") + ops.relu(fast)
        each = ops.einsum("bqh,bsho->bqso", hidden, phi["last"])
        fast = ops.einsum("bqs,bqso->bqo", attention, each)
        return self.answer(ops.cast(self.last(hidden), "float32") + fast, phi)

    def _derivative(self, raw: Any, labels: Any) -> Any:
        """Returns the derivative of each example's loss at raw outputs `(B, S, o)`."""
        raw = ops.cast(raw, "float32")
        if self.ways:
            return ops.softmax(raw, axis=-1) - labels
        examples, each = ops.shape(raw)[1], raw.shape[-1] // self.output_dim
        by_output = ops.reshape(raw, (-1, examples, self.output_dim, each))
        error = by_output[..., :1] - labels[..., None]
        others = ops.zeros_like(by_output[..., 1:])
        joined = ops.concatenate([2 * error, others], axis=-1)
        return ops.reshape(joined, (-1, examples, raw.shape[-1]))

    def _fast_key(self, x: Any, labels: Any, mask: Any) -> Any:
        """Returns the task's fast weights of keys, `(B, D, key_size)`."""
        x, labels, mask = (t[:, : self.num_gradients] for t in (x, labels, mask))
        keys = ops.cast(ops.relu(self.key(x)), "float32")
        wrong = self._derivative(self.last(keys), labels)
        of_keys = ops.matmul(wrong, ops.transpose(self._kernel(self.last)))
        of_keys = of_keys * ops.cast(keys > 0, "float32")
        gradient = _as_inputs(_gradient(x, of_keys))  # B, T, D, k, 2
        steps, features = ops.shape(x)[1], x.shape[-1]
        coordinates = features * self.hidden
        gradient = ops.reshape(gradient, (-1, steps, coordinates, 2))
        gradient = ops.transpose(gradient, (0, 2, 1, 3))
        gradient = ops.reshape(gradient, (-1, steps, 2))
        there = ops.repeat(ops.cast(mask, "bool"), coordinates, axis=0)
        made = self.make_key(self.over_gradients(gradient, mask=there))
        return ops.reshape(
            ops.cast(made, "float32"), (-1, features, self.hidden)
        ) / math.sqrt(features)

    def _keys(self, x: Any, fast: Any) -> Any:
        """Returns keys of examples `(B, n, key_size)`."""
        slow = ops.cast(ops.relu(self.key(x)), "float32")
        return slow + ops.relu(ops.matmul(x, fast))

    def _made(self, maker: keras.Sequential, rate: Any, inputs: Any, wrong: Any) -> Any:
        """Returns fast weights of each example `(B, S, inputs, outputs)`."""
        gradient = _gradient(inputs, wrong)
        made = ops.cast(maker(_as_inputs(gradient))[..., 0], "float32")
        return made / math.sqrt(inputs.shape[-1]) - rate * gradient

    def _kernel(self, layer: keras.layers.Dense) -> Any:
        return ops.cast(layer.kernel, "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "num_gradients": self.num_gradients,
            "maker_units": self.maker_units,
        }


def _gradient(inputs: Any, wrong: Any) -> Any:
    """Returns the gradient of each example's loss at the kernel of a dense layer.

    Args:
        inputs: What the layer read `(B, S, D)`.
        wrong: The derivative of the loss at its outputs `(B, S, o)`.

    Returns:
        `(B, S, D, o)`.
    """
    return inputs[..., None] * wrong[..., None, :]


def _as_inputs(gradient: Any) -> Any:
    """Returns each number of a gradient as two of moderate size.

    $$ (\\log |g| / p, \\text{sign}\\, g) \\text{ if } |g| \\ge e^{-p}, \\quad
       (-1, e^p g) \\text{ else} $$

    Nothing is differentiated through it: the logarithm is steepest where a gradient is
    smallest.
    """
    gradient = ops.stop_gradient(gradient)
    size = ops.abs(gradient)
    large = size >= math.exp(-_PRECISION)
    logarithm = ops.log(ops.where(large, size, 1.0)) / _PRECISION
    first = ops.where(large, logarithm, -1.0)
    second = ops.where(large, ops.sign(gradient), math.exp(_PRECISION) * gradient)
    return ops.stack([first, second], axis=-1)
