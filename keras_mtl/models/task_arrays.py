"""Supports and queries as a user gives them, checked before a model reads them."""

from typing import Any

import keras
import numpy as np


class TaskArrays:
    """Examples, labels and mask as a user gives them.

    Args:
        support_x: Examples `(S, ...)` or `(B, S, ...)`.
        support_y: Labels.
        support_mask: Mask, or `None`.
    """

    def __init__(self, support_x: Any, support_y: Any, support_mask: Any) -> None:
        self.x = np.asarray(support_x)
        self.y = np.asarray(support_y)
        self.mask = None if support_mask is None else np.asarray(support_mask)

    def batched(
        self, leading: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns examples, labels and mask with an axis of tasks.

        Args:
            leading: Axes before an example: 1 for one task, 2 for several. Defaults
                to `None`: as the labels say, which are integers or one-hot floats.
        """
        if leading is None:
            integers = np.issubdtype(self.y.dtype, np.integer)
            leading = self.y.ndim - (0 if integers else 1)
        if leading not in (1, 2) or self.x.ndim < leading:
            raise ValueError(
                "`support_x` must have an axis of examples, and perhaps one of tasks "
                f"before. Received: support_x of shape {self.x.shape}, support_y of "
                f"shape {self.y.shape}"
            )
        shape = self.x.shape[:leading]
        mask = np.ones(shape, bool) if self.mask is None else self.mask.astype(bool)
        x, y = self.x, self.y
        if x.dtype == "float64":
            x = x.astype("float32")
        if y.dtype == "float64":
            y = y.astype("float32")
        if y.shape[:leading] != shape or mask.shape != shape:
            raise ValueError(
                "`support_x`, `support_y` and `support_mask` must have as many tasks "
                f"and examples. Received: support_x of shape {x.shape}, support_y of "
                f"shape {y.shape}, support_mask of shape {mask.shape}"
            )
        if leading == 1:
            return x[None], y[None], mask[None]
        return x, y, mask

    def checked(
        self, example_shape: tuple[int | None, ...], learner: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns them batched, or says what does not fit.

        Args:
            example_shape: The shape of an example that the model was built with.
            learner: The learner that is to read them.
        """
        leading = self.x.ndim - len(example_shape)
        ends = self.x.shape[leading:] if leading > 0 else self.x.shape
        if leading not in (1, 2) or any(
            b is not None and a != b for a, b in zip(ends, example_shape, strict=True)
        ):
            raise ValueError(
                f"`support_x` must hold examples of shape {example_shape}, with an "
                "axis of examples before and perhaps one of tasks. Received: "
                f"support_x of shape {self.x.shape}"
            )
        x, y, mask = self.batched(leading)
        if getattr(learner, "needs_support", True) and not mask.any(axis=1).all():
            raise ValueError(
                "Every task must have at least one example in its support. Received: "
                f"{mask.sum(axis=1).tolist()} examples, by task"
            )
        _check_finite("support_x", x[mask])
        _check_finite("support_y", y[mask])
        ways = getattr(learner, "ways", None)
        if ways is not None:
            _check_classes(y, mask, ways)
        return x, y, mask


def checked_queries(
    query_x: Any, example_shape: tuple[int | None, ...], phi: Any
) -> tuple[np.ndarray, bool]:
    """Returns queries with an axis of tasks, and whether they had none.

    Args:
        query_x: Examples `(Q, ...)` or `(B, Q, ...)`, as a user gives them.
        example_shape: The shape of an example that the model was built with.
        phi: A nest whose leaves have a first axis of tasks.
    """
    query_x = given = np.asarray(query_x)
    one_task = query_x.ndim == len(example_shape) + 1
    if one_task:
        query_x = query_x[None]
    fits = query_x.ndim == len(example_shape) + 2 and all(
        b is None or a == b
        for a, b in zip(query_x.shape[2:], example_shape, strict=True)
    )
    if not fits or query_x.shape[1] == 0:
        raise ValueError(
            f"`query_x` must hold one or more examples of shape {example_shape}, with "
            "an axis of queries before and perhaps one of tasks. Received: query_x of "
            f"shape {given.shape}"
        )
    tasks = {len(leaf) for leaf in keras.tree.flatten(phi)}
    if tasks != {len(query_x)}:
        raise ValueError(
            "`query_x` must have queries for every task of `phi`. Received: phi of "
            f"{sorted(tasks)} tasks, query_x of {len(query_x)}"
        )
    if query_x.dtype == "float64":
        query_x = query_x.astype("float32")
    return query_x, one_task


def _check_finite(name: str, values: np.ndarray) -> None:
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise ValueError(
            f"`{name}` must be finite. Received: {int((~np.isfinite(values)).sum())} "
            "numbers that are not"
        )


def _check_classes(labels: np.ndarray, mask: np.ndarray, ways: int) -> None:
    there = labels[mask]
    if labels.ndim == 2:
        whole = there == np.floor(there)
        if not whole.all() or (there < 0).any() or (there >= ways).any():
            raise ValueError(
                f"`support_y` must be classes from 0 to {ways - 1}, or one-hot. "
                f"Received: labels from {there.min()} to {there.max()}"
            )
        return
    one_hot = ((there == 0) | (there == 1)).all() and (there.sum(axis=-1) == 1).all()
    if not one_hot:
        raise ValueError(
            "`support_y` with an axis of classes must be one-hot. Received: rows that "
            f"sum to {there.sum(axis=-1).min()} to {there.sum(axis=-1).max()}"
        )
