"""How the labels of a support are read, and how raw outputs become predictions."""

from typing import Any, Protocol

from keras import ops

from keras_mtl.distributions import Distribution
from keras_mtl.learners.class_probabilities import ABSENT, class_probabilities


class Answers(Protocol):
    """What a learner reads from labels and answers with."""

    label_size: int
    """Numbers that describe a label."""

    output_size: int
    """Raw numbers that a learner makes for each query."""

    def encode(self, support_y: Any, support_mask: Any) -> tuple[Any, dict[str, Any]]:
        """Returns labels `(B, S, label_size)`, and what `decode` needs of them.

        Labels that are not there are zero.
        """
        ...

    def decode(self, raw: Any, seen: dict[str, Any]) -> Any:
        """Returns predictions of raw outputs `(B, Q, output_size)`."""
        ...


class ClassAnswers:
    """One of N classes.

    Labels are integers `(B, S)` or one-hot `(B, S, n)` with n at most N; predictions
    are probabilities, `(B, Q, N)` or `(B, Q, n)`. Classes that are not in the support
    have a probability of 0.

    Args:
        ways: Integer N.
    """

    def __init__(self, ways: int) -> None:
        self.ways = ways
        self.label_size = ways
        self.output_size = ways

    def encode(self, support_y: Any, support_mask: Any) -> tuple[Any, dict[str, Any]]:
        """Returns labels and which classes are there: `{"seen": (B, n)}`."""
        support_y = ops.convert_to_tensor(support_y)
        rank = len(support_y.shape)
        if rank == 2:
            width = self.ways
            labels = ops.one_hot(ops.cast(support_y, "int32"), self.ways)
        elif rank == 3:
            given = support_y.shape[-1]
            if given is not None and given > self.ways:
                raise ValueError(
                    "One-hot support labels must have at most as many classes as the "
                    f"learner has ways, {self.ways}. Received: labels of shape "
                    f"{tuple(support_y.shape)}"
                )
            width = ops.shape(support_y)[-1]
            others = ops.zeros((*ops.shape(support_y)[:2], self.ways), support_y.dtype)
            labels = ops.concatenate([support_y, others], axis=-1)[..., : self.ways]
        else:
            raise ValueError(
                "Support labels must be integers of shape (tasks, examples) or one-hot "
                "of shape (tasks, examples, classes). Received: labels of shape "
                f"{tuple(support_y.shape)}"
            )
        labels = ops.cast(labels, "float32")
        labels = labels * ops.cast(support_mask, "float32")[..., None]
        seen = ops.cast(ops.any(labels > 0, axis=1), "float32")  # B, ways
        return labels, {"seen": seen[:, :width]}

    def decode(self, raw: Any, seen: dict[str, Any]) -> Any:
        """Returns probabilities `(B, Q, n)`."""
        there = seen["seen"]
        logits = ops.cast(raw, "float32")[..., : ops.shape(there)[-1]]
        logits = ops.where(there[:, None, :] > 0, logits, ABSENT)
        return class_probabilities(logits)


class NumberAnswers:
    """Numbers, or distributions of them.

    Labels are `(B, S, Dy)`, or `(B, S)` for Dy = 1. Predictions are `(B, Q, Dy)`, or
    with a distribution its parameters, `(B, Q, Dy, parameters)`.

    Args:
        output_dim: Integer Dy.
        distribution: A `Distribution`, or `None` for plain numbers.
    """

    def __init__(self, output_dim: int, distribution: Distribution | None) -> None:
        self.output_dim = output_dim
        self.distribution = distribution
        self.label_size = output_dim
        self.raw_size = 1 if distribution is None else distribution.raw_size
        self.output_size = output_dim * self.raw_size

    def encode(self, support_y: Any, support_mask: Any) -> tuple[Any, dict[str, Any]]:
        """Returns labels `(B, S, Dy)`."""
        labels = ops.cast(ops.convert_to_tensor(support_y), "float32")
        if len(labels.shape) == 2:
            labels = labels[..., None]
        if len(labels.shape) != 3 or labels.shape[-1] != self.output_dim:
            raise ValueError(
                "Support labels must have shape (tasks, examples, output_dim) with "
                f"output_dim={self.output_dim}. Received: labels of shape "
                f"{tuple(support_y.shape)}"
            )
        there = ops.cast(support_mask, "bool")[..., None]
        return ops.where(there, labels, 0.0), {}

    def decode(self, raw: Any, seen: dict[str, Any]) -> Any:
        """Returns numbers, or parameters of their distributions."""
        raw = ops.cast(raw, "float32")
        if self.distribution is None:
            return raw
        shape = (-1, ops.shape(raw)[1], self.output_dim, self.raw_size)
        return self.distribution.parameters(ops.reshape(raw, shape))
