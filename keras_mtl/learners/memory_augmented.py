"""Memory-augmented neural networks."""

from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_count, check_number
from keras_mtl.learners.feature_vectors import check_vectors, joined
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.least_recently_used_memory import LeastRecentlyUsedMemory
from keras_mtl.learners.support_sequence import at_place, in_front


@keras.saving.register_keras_serializable("keras_mtl")
class MemoryAugmented(Learner):
    """An LSTM with a memory beside it, written to where it was used least (MANN).

    The controller reads an example, writes to the memory, and reads from it by
    similarity; see `LeastRecentlyUsedMemory` for the access. phi is the memory with its
    weights, and the state of the controller. It is wiped for every task.

    `protocol="support"`: each example is read with its label, and each query is a step
    of its own after the support.

    `protocol="every_step"`, that of the paper: an example is read with the label of the
    one *before*, and its own label is to be predicted, at every step. In training the
    loss that `compile` is given is averaged over all steps of the support and the
    queries; `predict_steps` gives what is predicted at each step, for accuracy by the
    number of examples of a class that were seen.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted. Defaults to `"gaussian"`.
        protocol: `"support"` or `"every_step"`. Defaults to `"support"`.
        units: Integer, units of the controller. Defaults to 200.
        slots: Integer, rows of the memory. Defaults to 128.
        slot_size: Integer, numbers in a row. Defaults to 40.
        reads: Integer, read heads. Defaults to 4.
        usage_decay: Number γ between 0 and 1. Defaults to 0.95.
        read_strength: Boolean, whether similarities are multiplied with a number that
            the controller says, before the softmax. In the paper they are not: with
            128 rows a perfect match then has at most a weight of 0.055. Defaults to
            `True`.
        separate_write: Boolean, whether what is written is not the key of reading.
            Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.MemoryAugmented(ways=5, units=32, slots=16)
    inputs = {
        "support_x": np.zeros((2, 5, 8), "float32"),
        "support_y": np.tile(np.arange(5), (2, 1)),
        "support_mask": np.ones((2, 5), "bool"),
        "query_x": np.zeros((2, 15, 8), "float32"),
    }
    assert learner(inputs).shape == (2, 15, 5)
    ```

    Reference:
        Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks", ICML
        2016, https://proceedings.mlr.press/v48/santoro16.html
    """

    needs_support = False

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        protocol: str = "support",
        units: int = 200,
        slots: int = 128,
        slot_size: int = 40,
        reads: int = 4,
        usage_decay: float = 0.95,
        read_strength: bool = True,
        separate_write: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(ways, output_dim, distribution, **kwargs)
        self.protocol = check_choice("protocol", protocol, ("support", "every_step"))
        self.units = check_count("units", units)
        self.slots = check_count("slots", slots)
        self.slot_size = check_count("slot_size", slot_size)
        self.reads = check_count("reads", reads)
        if reads > slots:
            raise ValueError(
                "`reads` must be at most `slots`. "
                f"Received: reads={reads}, slots={slots}"
            )
        self.usage_decay = check_number(
            "usage_decay", usage_decay, at_least=0, at_most=1
        )
        self.read_strength = read_strength
        self.separate_write = separate_write
        dtype = self.dtype_policy
        self.memory = LeastRecentlyUsedMemory(
            units,
            slots,
            slot_size,
            reads,
            usage_decay,
            read_strength,
            separate_write,
            controller_dtype=dtype,
            dtype="float32",
        )
        self.sequence = keras.layers.RNN(
            self.memory, return_sequences=True, return_state=True, dtype="float32"
        )
        self.head = keras.layers.Dense(self.output_size, dtype=dtype)

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns the state after the support: memory, weights and controller."""
        _, phi = self._read(support_x, support_y, support_mask)
        return phi

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        check_vectors(query_x, "query_x")
        queries = ops.shape(query_x)[1]
        label = ops.repeat(phi["last_label"][:, None], queries, axis=1)
        there = ops.ones(ops.shape(query_x)[:2], "bool")
        tokens = joined(query_x, label, there[..., None])
        tokens = ops.reshape(tokens, (-1, tokens.shape[-1]))
        states = [ops.repeat(part, queries, axis=0) for part in phi["states"]]
        output, _ = self.memory(tokens, states)
        output = ops.reshape(output, (-1, queries, output.shape[-1]))
        return self.answer(self.head(output), phi)

    def predict_steps(self, x: Any, y: Any, mask: Any = None) -> Any:
        """Returns what is predicted at each step of a sequence, before its label.

        Args:
            x: Features `(B, T, D)`.
            y: Labels `(B, T)` or `(B, T, label_size)`.
            mask: Whether each is there `(B, T)`. Defaults to `None`, all are.

        Returns:
            Predictions `(B, T, ...)`.

        Raises:
            ValueError: If the protocol is not `"every_step"`.
        """
        if self.protocol != "every_step":
            raise ValueError(
                "`predict_steps` needs protocol='every_step': otherwise a step is told "
                f"its own label. Received: protocol={self.protocol!r}"
            )
        if mask is None:
            mask = ops.ones(ops.shape(x)[:2], "bool")
        outputs, phi = self._read(x, y, mask)
        return self._answers_of_steps(outputs, phi, mask)

    def objective(
        self,
        inputs: dict[str, Any],
        query_y: Any,
        query_mask: Any,
        loss: Any,
    ) -> Any:
        """Returns the mean loss over all steps, in training by `"every_step"`.

        The queries of an episode are steps as its support is, each after all of it.

        Args:
            inputs: As of `call`.
            query_y: Labels of the queries.
            query_mask: Whether each query is there `(B, Q)`.
            loss: A function of labels, predictions and weights.
        """
        labels, mask = inputs["support_y"], inputs["support_mask"]
        outputs, phi = self._read(inputs["support_x"], labels, mask)
        steps = [
            (labels, self._answers_of_steps(outputs, phi, mask), mask),
            (query_y, self.predict(phi, inputs["query_x"]), query_mask),
        ]
        if self.output_dim:
            steps = [
                (ops.reshape(y, (*ops.shape(there), self.output_dim)), predicted, there)
                for y, predicted, there in steps
            ]
        labels, predicted, there = (
            ops.concatenate([first, ops.cast(second, first.dtype)], axis=1)
            for first, second in zip(*steps, strict=True)
        )
        return loss(labels, predicted, ops.cast(there, "float32"))

    @property
    def has_objective(self) -> bool:
        """Whether `objective` is trained on, in place of the loss at the queries."""
        return self.protocol == "every_step"

    def _read(self, x: Any, y: Any, mask: Any) -> tuple[Any, dict[str, Any]]:
        """Reads a sequence.

        Returns:
            Outputs at each step `(B, T, size)`, and phi: the states at the end, the
            label that a next step is told `(B, label_size)`, and what `answer` needs.
        """
        check_vectors(x, "support_x")
        labels, seen = self.read_labels(y, mask)
        mask, x, labels = in_front(mask, x, labels)
        last = ops.zeros_like(labels[:, 0])
        if self.protocol == "every_step":
            counts = ops.sum(ops.cast(mask, "int32"), axis=1)
            last = at_place(labels, counts - 1)
            labels = ops.pad(labels, [[0, 0], [1, 0], [0, 0]])[:, :-1]
        outputs, *states = self.sequence(joined(x, labels, mask[..., None]))
        return outputs, {"states": states, "last_label": last, **seen}

    def _answers_of_steps(self, outputs: Any, phi: dict[str, Any], mask: Any) -> Any:
        """Returns predictions of any class, also where its first example is to come."""
        # What was read were the examples that are there, one after the other.
        place = ops.cumsum(ops.cast(mask, "int32"), axis=1) - 1
        place = ops.maximum(place, 0)[..., None]
        outputs = ops.take_along_axis(outputs, place, axis=1)
        any_class = {"seen": ops.ones_like(phi["seen"])} if self.ways else phi
        return self.answer(self.head(outputs), any_class)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "protocol": self.protocol,
            "units": self.units,
            "slots": self.slots,
            "slot_size": self.slot_size,
            "reads": self.reads,
            "usage_decay": self.usage_decay,
            "read_strength": self.read_strength,
            "separate_write": self.separate_write,
        }
