"""A mean over batches that counts each task's own batches only."""

from typing import Any

from keras import ops


def running_mean(mean: Any, count: Any, losses: Any, present: Any) -> tuple[Any, Any]:
    """Returns the mean and the count after one more batch, both `(T,)`.

    $$ m_k \\leftarrow m_k + p_k (L_k - m_k) / n_k $$

    It is held as a mean, for a sum of many large losses loses its last digits.

    Args:
        mean: Means so far, `(T,)`.
        count: Batches that they are taken over, `(T,)`.
        losses: Losses of the batch, `(T,)`.
        present: 1 for a task that is in the batch, else 0, `(T,)`.
    """
    count = count + present
    return mean + present * (losses - mean) / ops.maximum(count, 1.0), count
