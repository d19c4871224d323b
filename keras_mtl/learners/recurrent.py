"""Recurrent learners."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_count
from keras_mtl.learners.feature_vectors import check_vectors, joined
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.support_sequence import in_front

_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


@keras.saving.register_keras_serializable("keras_mtl")
class Recurrent(Learner):
    """Reads the support one example after the other; phi is its state then.

    $$ h_t = \\text{LSTM}([x_t; y_t], h_{t-1}), \\qquad
       \\hat y = W\\, \\text{LSTM}([x; 0], h_S) $$

    Every query starts from the state after the support, so that none sees another.

    The variant of a course homework is `query_mode="sequential", head="recurrent"`:
    queries follow each other in one sequence, and a second recurrent layer with one
    unit for each output is the last. Two things are wrong with it, which is why it is
    no default. Where each class is asked for once, later queries can leave out classes
    that were answered. And outputs of an LSTM are between -1 and 1: as logits of 5
    classes they give at most a probability of 0.65 and a loss of at least 0.433.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. Defaults to `"gaussian"`.
        units: Integer, units of each recurrent layer. Defaults to 128.
        depth: Integer, number of recurrent layers. Defaults to 1.
        cell: `"lstm"` or `"gru"`. Defaults to `"lstm"`.
        query_mode: `"parallel"`, or `"sequential"`: each query also sees those before
            it. Defaults to `"parallel"`.
        head: `"dense"`, or `"recurrent"`: another recurrent layer, with as many units
            as there are outputs. Defaults to `"dense"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.Recurrent(ways=5, cell="gru")
    inputs = {
        "support_x": np.zeros((2, 5, 8), "float32"),
        "support_y": np.tile(np.arange(5), (2, 1)),
        "support_mask": np.ones((2, 5), "bool"),
        "query_x": np.zeros((2, 15, 8), "float32"),
    }
    assert learner(inputs).shape == (2, 15, 5)
    ```

    Reference:
        Hochreiter, Younger and Conwell, "Learning to Learn Using Gradient Descent",
        ICANN 2001, https://doi.org/10.1007/3-540-44668-0_13
    """

    needs_support = False

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        units: int = 128,
        depth: int = 1,
        cell: str = "lstm",
        query_mode: str = "parallel",
        head: str = "dense",
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.units = check_count("units", units)
        self.depth = check_count("depth", depth)
        self.cell = check_choice("cell", cell, _LAYERS)
        self.query_mode = check_choice(
            "query_mode", query_mode, ("parallel", "sequential")
        )
        self.head = check_choice("head", head, ("dense", "recurrent"))
        sizes = [units] * depth
        if head == "recurrent":
            sizes.append(self.output_size)
        dtype = self.dtype_policy
        self.recurrent_layers = [
            _LAYERS[cell](size, return_sequences=True, return_state=True, dtype=dtype)
            for size in sizes
        ]
        self.dense = None
        if head == "dense":
            self.dense = keras.layers.Dense(self.output_size, dtype=dtype)

    @property
    def sequential_queries(self) -> bool:
        """Whether a query sees those before it."""
        return self.query_mode == "sequential"

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the states of every layer, each `(B, units)`."""
        check_vectors(support_x, "support_x")
        labels, seen = self.read_labels(support_y, support_mask)
        mask, x, labels = in_front(support_mask, support_x, labels)
        states = []
        sequence = joined(x, labels, dtype=self.compute_dtype)
        for layer in self.recurrent_layers:
            sequence, *state = layer(sequence, mask=mask)
            states.append(state)
        return {"states": states, **seen}

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        unknown = ops.zeros((*ops.shape(query_x)[:2], self.label_size), "float32")
        tokens = joined(query_x, unknown, dtype=self.compute_dtype)
        if self.sequential_queries:
            output = self._one_after_the_other(tokens, phi["states"])
        else:
            output = self._each_from_the_support(tokens, phi["states"])
        return self.answer(output if self.dense is None else self.dense(output), phi)

    def _each_from_the_support(self, tokens: Any, states: list[list[Any]]) -> Any:
        queries = ops.shape(tokens)[1]
        output = ops.reshape(tokens, (-1, tokens.shape[-1]))  # B Q, D
        for layer, state in zip(self.recurrent_layers, states, strict=True):
            state = [ops.repeat(part, queries, axis=0) for part in state]
            output, _ = layer.cell(output, state)
        return ops.reshape(output, (-1, queries, output.shape[-1]))

    def _one_after_the_other(self, tokens: Any, states: list[list[Any]]) -> Any:
        for layer, state in zip(self.recurrent_layers, states, strict=True):
            tokens, *_ = layer(tokens, initial_state=list(state))
        return tokens

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "depth": self.depth,
            "cell": self.cell,
            "query_mode": self.query_mode,
            "head": self.head,
        }
