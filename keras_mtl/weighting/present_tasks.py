"""Reductions over the tasks that are present in a batch."""

from typing import Any

from keras import ops

# Far above every score that float32 losses can give, yet finite: the gradient of
# what is masked stays free of NaN.
MASK = 1e30


def mean_over_present(values: Any, present: Any) -> Any:
    """Returns the mean of `values` where `present` is 1; 0 if it is 1 nowhere.

    Args:
        values: Float tensor of shape `(T,)`, finite everywhere.
        present: Float tensor of shape `(T,)` of zeros and ones.
    """
    return ops.sum(present * values) / ops.maximum(ops.sum(present), 1.0)


def softmax_over_present(scores: Any, present: Any) -> Any:
    """Returns the softmax of the scores where `present` is 1, and 0 elsewhere.

    Args:
        scores: Float tensor of shape `(T,)`, finite everywhere.
        present: Float tensor of shape `(T,)` of zeros and ones.
    """
    return present * ops.softmax(scores + MASK * (present - 1.0))


def logsumexp_over_present(scores: Any, present: Any) -> Any:
    """Returns the log of the sum of `exp(scores)` where `present` is 1.

    Args:
        scores: Float tensor of shape `(T,)`, finite everywhere.
        present: Float tensor of shape `(T,)` of zeros and ones.
    """
    return ops.logsumexp(scores + MASK * (present - 1.0))
