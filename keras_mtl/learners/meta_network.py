"""Meta networks."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.learners.class_probabilities import ABSENT
from keras_mtl.learners.cosine import unit_vectors
from keras_mtl.learners.fast_weights import ExampleLevelWeights, TaskLevelWeights
from keras_mtl.learners.feature_vectors import check_vectors
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.support_sequence import in_front


@keras.saving.register_keras_serializable("keras_mtl")
class MetaNetwork(Learner):
    """Makes fast weights of the gradients that the support has at slow weights.

    A base learner, one hidden layer $\\text{relu}(W_1 x)$ and a last layer $W_2$, has
    slow weights, which `fit` trains, and fast ones of two levels.

    - Of the task: an LSTM U, the same for every coordinate, reads the gradients of the
      first examples of the support.
    - Of an example: a network G, the same for every coordinate, reads the gradient that
      this example has at the slow weights, with the task's fast ones beside them. What
      it makes is kept in a memory, by a key of the example. A query reads the memory by
      the similarity of keys.

    All of them answer a query together:

    $$ h = \\text{relu}(W_1 x) + \\text{relu}(U_1 x) + \\text{relu}(W_1^+ x), \\quad
       \\hat y = (W_2 + U_2 + W_2^+) h, \\quad
       W^+ = \\sum_i a_i G(\\nabla_W L_i) $$

    The weights a are a softmax of cosine similarities times a learned number, which
    starts at the paper's 1. Keys are made of slow weights and of fast ones of the task
    (of the loss of $W_2$ on keys). Layers are dense, so that gradients are products of
    two vectors and nothing is differentiated twice.

    The paper's G and LSTM have no step of plain descent beside them; here it is one at
    a learned rate. They read the logarithm and the sign of a gradient, which tell sizes
    of errors badly; labels that are numbers need them.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted; gradients are those of the
            squared error of the first raw number of each output. Defaults to
            `"gaussian"`.
        hidden: Integer, units of the base learner, and the size of a key. Defaults to
            32.
        num_gradients: Integer, examples whose gradients make the task's fast weights.
            Defaults to 5.
        maker_units: Integer, units of G and of the LSTM. Defaults to 8.
        task_weights: Boolean, whether the base learner has fast weights of the task
            (the paper's MetaNet+), or the keys alone (its MetaNet). With the keys
            alone, examples say what they say one by one, and a query mixes it; numbers
            are then learned little better than by a kernel smoother. Defaults to
            `True`.
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
        task_weights: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.hidden = check_count("hidden", hidden)
        self.num_gradients = check_count("num_gradients", num_gradients)
        self.maker_units = check_count("maker_units", maker_units)
        self.task_weights = bool(task_weights)
        dtype = self.dtype_policy
        self.first = keras.layers.Dense(hidden, dtype=dtype)
        self.last = keras.layers.Dense(self.output_size, dtype=dtype)
        self.key = keras.layers.Dense(hidden, dtype=dtype)
        # A bias of the last would be the same for the logits of all classes, and change
        # nothing.
        self.of_examples = [
            ExampleLevelWeights(maker_units, last_bias=bias, dtype=dtype)
            for bias in (True, False)
        ]
        self.of_keys = TaskLevelWeights(maker_units, dtype=dtype)
        self.of_task = [
            TaskLevelWeights(maker_units, dtype=dtype)
            for _ in range(2 if self.task_weights else 0)
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
        early = [tensor[:, : self.num_gradients] for tensor in (x, labels, mask)]
        task = self._task_weights(*early)
        gradients = self._gradients(x, labels, task)
        fast_key = self._fast_key(*early)
        return {
            "keys": self._keys(x, fast_key),
            "fast_key": fast_key,
            "task": task,
            "examples": [
                make(gradient)
                for make, gradient in zip(self.of_examples, gradients, strict=True)
            ],
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

        def read(x: Any, weights: Any) -> Any:
            # What the fast weights of each example say, and then their mean: a query
            # has no weights of its own to be kept.
            each = ops.einsum("bqd,bsdh->bqsh", x, weights)
            return ops.einsum("bqs,bqsh->bqh", attention, each)

        first, last = phi["examples"]
        _, hidden = self._hidden(query_x, phi["task"])
        hidden = hidden + ops.relu(read(query_x, first))
        return self.answer(self._raw(hidden, phi["task"]) + read(hidden, last), phi)

    def _task_weights(self, x: Any, labels: Any, mask: Any) -> list[Any]:
        """Returns the base learner's fast weights of the task, first and last."""
        if not self.task_weights:
            return []
        gradients = self._gradients(x, labels, [])
        return [
            make(gradient, mask)
            for make, gradient in zip(self.of_task, gradients, strict=True)
        ]

    def _hidden(self, x: Any, task: list[Any]) -> tuple[Any, Any]:
        """Returns what slow weights make of examples, and with the task's `(B, n, h)`.

        Args:
            x: Features `(B, n, D)`.
            task: The task's fast weights, first and last, or none.
        """
        slow = ops.cast(ops.relu(self.first(x)), "float32")
        return slow, slow + ops.relu(ops.matmul(x, task[0])) if task else slow

    def _raw(self, hidden: Any, task: list[Any]) -> Any:
        """Returns raw outputs `(B, n, o)`, without an example's fast weights."""
        slow = ops.cast(self.last(hidden), "float32")
        return slow + ops.matmul(hidden, task[1]) if task else slow

    def _gradients(self, x: Any, labels: Any, task: list[Any]) -> list[Any]:
        """Returns gradients of each example's loss at the first and last slow kernel.

        Returns:
            `(B, S, D, hidden)` and `(B, S, hidden, o)`.
        """
        slow, hidden = self._hidden(x, task)
        wrong = self._derivative(self._raw(hidden, task), labels)
        last = self._kernel(self.last)
        of_hidden = ops.matmul(wrong, ops.transpose(last))
        if task:
            back = ops.transpose(task[1], (0, 2, 1))
            of_hidden = of_hidden + ops.matmul(wrong, back)
        of_hidden = of_hidden * ops.cast(slow > 0, "float32")
        return [_outer(x, of_hidden), _outer(hidden, wrong)]

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
        keys = ops.cast(ops.relu(self.key(x)), "float32")
        wrong = self._derivative(self.last(keys), labels)
        of_keys = ops.matmul(wrong, ops.transpose(self._kernel(self.last)))
        of_keys = of_keys * ops.cast(keys > 0, "float32")
        return self.of_keys(_outer(x, of_keys), mask)

    def _keys(self, x: Any, fast: Any) -> Any:
        """Returns keys of examples `(B, n, key_size)`."""
        slow = ops.cast(ops.relu(self.key(x)), "float32")
        return slow + ops.relu(ops.matmul(x, fast))

    def _kernel(self, layer: keras.layers.Dense) -> Any:
        return ops.cast(layer.kernel, "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "num_gradients": self.num_gradients,
            "maker_units": self.maker_units,
            "task_weights": self.task_weights,
        }


def _outer(inputs: Any, wrong: Any) -> Any:
    """Returns the gradient of each example's loss at the kernel of a dense layer.

    Args:
        inputs: What the layer read `(B, S, D)`.
        wrong: The derivative of the loss at its outputs `(B, S, o)`.

    Returns:
        `(B, S, D, o)`.
    """
    return inputs[..., None] * wrong[..., None, :]
