"""Networks whose weights another network makes."""

import itertools
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_count
from keras_mtl.learners.class_means import class_means
from keras_mtl.learners.feature_vectors import (
    check_vectors,
    joined,
    multi_layer_perceptron,
)
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.masked_pooling import masked_mean

_GENERATES = ("film", "last_layer", "network")


@keras.saving.register_keras_serializable("keras_mtl")
class HyperNetwork(Learner):
    """A network reads the support and makes weights of another, which answers.

    $$ r = \\text{mean}_i\\, h([x_i; y_i]), \\qquad \\phi = W_0 + 0.1\\, G(r),
       \\qquad \\hat y = g_\\phi(x) $$

    phi are weights of g, a network with hidden layers, as `generates` says:

    - `"film"`: a scale and a shift of each hidden unit; all else is shared;
    - `"last_layer"`: the last layer. For classification the weights of class k are made
      from the mean of h of its own examples, without $W_0$, so that names of classes
      have no meaning;
    - `"network"`: every weight and bias.

    $W_0$ is learned too, and started as layers are; the last layer of G is started near
    zero.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. Defaults to `"gaussian"`.
        generates: `"film"`, `"last_layer"` or `"network"`. Defaults to `None`: the last
            layer for classification, the network for regression.
        width: Integer, units of the layers of h, and the size of r. Defaults to 128.
        encoder_depth: Integer, layers of h. Defaults to 3.
        hidden: Integer, units of the hidden layers of g. Defaults to 64.
        depth: Integer, hidden layers of g. Defaults to 2.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.HyperNetwork(output_dim=1, hidden=16)
    x = np.zeros((2, 10, 1), "float32")
    phi = learner.adapt(x, x, np.ones((2, 10), "bool"))
    assert phi["weights"][0]["kernel"].shape == (2, 1, 16)  # of each task
    ```

    Reference:
        Ha, Dai and Le, "HyperNetworks", ICLR 2017, https://arxiv.org/abs/1609.09106;
        Gordon et al., "Meta-Learning Probabilistic Inference For Prediction" (VERSA),
        ICLR 2019, https://arxiv.org/abs/1805.09921; Requeima et al., "Fast and Flexible
        Multi-Task Classification Using Conditional Neural Adaptive Processes", NeurIPS
        2019, https://arxiv.org/abs/1906.07697 (FiLM)
    """

    ignores_order = True

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        generates: str | None = None,
        width: int = 128,
        encoder_depth: int = 3,
        hidden: int = 64,
        depth: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        if generates is None:
            generates = "last_layer" if ways else "network"
        self.generates = check_choice("generates", generates, _GENERATES)
        self.width = check_count("width", width)
        self.encoder_depth = check_count("encoder_depth", encoder_depth)
        self.hidden = check_count("hidden", hidden)
        self.depth = check_count("depth", depth)
        self.by_class = bool(ways) and generates == "last_layer"
        self.permutes_labels = self.by_class
        dtype = self.dtype_policy
        self.encoder = multi_layer_perceptron([width] * encoder_depth, dtype=dtype)
        self.generators: list[keras.layers.Layer] = []
        self.base: list[dict[str, Any]] = []
        self.hidden_layers: list[keras.layers.Layer] = []
        if generates != "network":
            self.hidden_layers = [
                keras.layers.Dense(hidden, dtype=dtype) for _ in range(depth)
            ]
        self.head = None
        if generates == "film":
            self.head = keras.layers.Dense(self.output_size, dtype=dtype)

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Creates the base weights, of what the support's shape asks for."""
        features = input_shape["support_x"][-1]
        outputs = 1 if self.by_class else self.output_size
        if self.generates == "film":
            sizes = [(self.hidden, self.hidden)] * self.depth
        elif self.generates == "last_layer":
            sizes = [(self.hidden, outputs)]
        else:
            widths = [features] + [self.hidden] * self.depth + [outputs]
            sizes = list(itertools.pairwise(widths))
        film = self.generates == "film"
        for index, (inputs, units) in enumerate(sizes):
            kernel_shape = (units,) if film else (inputs, units)
            if not self.by_class:
                self._add_base(
                    index, kernel_shape, "ones" if film else "glorot_uniform"
                )
            numbers = (1 if film else inputs) * units + units
            generator = keras.Sequential(
                [
                    keras.layers.Dense(
                        self.width, activation="relu", dtype=self.dtype_policy
                    ),
                    keras.layers.Dense(
                        numbers,
                        kernel_initializer=keras.initializers.VarianceScaling(
                            1.0 if self.by_class else 0.1
                        ),
                        dtype=self.dtype_policy,
                    ),
                ]
            )
            rows = (None, None) if self.by_class else (None,)
            generator.build((*rows, self.width))
            self.generators.append(generator)

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the weights that were made, for each task."""
        check_vectors(support_x, "support_x")
        if not self.built:
            self.build({"support_x": tuple(support_x.shape)})
        labels, seen = self.read_labels(support_y, support_mask)
        if self.by_class:
            read = class_means(labels, self.encoder(support_x))  # B, N, width
        else:
            each = self.encoder(joined(support_x, labels))
            read = masked_mean(each, support_mask)  # B, width
        made = [ops.cast(make(read), "float32") for make in self.generators]
        if self.by_class:
            of_class = {"kernel": made[0][..., :-1], "bias": made[0][..., -1]}
            return {"weights": [of_class], **seen}
        weights = [
            self._with_base(base, delta)
            for base, delta in zip(self.base, made, strict=True)
        ]
        return {"weights": weights, **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        weights = phi["weights"]
        if self.generates == "film":
            return self.answer(self._modulated(query_x, weights), phi)
        x = ops.cast(query_x, "float32")
        if self.generates == "last_layer":
            for layer in self.hidden_layers:
                x = ops.relu(layer(x))
            x = ops.cast(x, "float32")
            if self.by_class:
                kernel = ops.transpose(weights[0]["kernel"], (0, 2, 1))
                layer = {"kernel": kernel, "bias": weights[0]["bias"]}
                return self.answer(_dense(x, layer), phi)
        for layer in weights[:-1]:
            x = ops.relu(_dense(x, layer))
        return self.answer(_dense(x, weights[-1]), phi)

    def _add_base(self, index: int, kernel_shape: tuple[int, ...], start: str) -> None:
        """Creates the weights that what is generated is added to."""
        kernel = self.add_weight(
            shape=kernel_shape, initializer=start, name=f"kernel_{index}"
        )
        bias = self.add_weight(
            shape=kernel_shape[-1:], initializer="zeros", name=f"bias_{index}"
        )
        self.base.append({"kernel": kernel, "bias": bias})

    def _with_base(self, base: dict[str, Any], delta: Any) -> dict[str, Any]:
        """Returns the weights of each task."""
        kernel, bias = base["kernel"], base["bias"]
        units = bias.shape[0]
        delta = 0.1 * delta
        return {
            "kernel": kernel + ops.reshape(delta[:, :-units], (-1, *kernel.shape)),
            "bias": bias + delta[:, -units:],
        }

    def _modulated(self, x: Any, weights: list[dict[str, Any]]) -> Any:
        for layer, film in zip(self.hidden_layers, weights, strict=True):
            scale, shift = (
                ops.cast(film[key][:, None], self.compute_dtype)
                for key in ("kernel", "bias")
            )
            x = ops.relu(scale * layer(x) + shift)
        return self.head(x)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "generates": self.generates,
            "width": self.width,
            "encoder_depth": self.encoder_depth,
            "hidden": self.hidden,
            "depth": self.depth,
        }


def _dense(x: Any, layer: dict[str, Any]) -> Any:
    """Returns each task's own dense layer of its queries, `(B, Q, units)`."""
    return ops.matmul(x, layer["kernel"]) + layer["bias"][:, None]
