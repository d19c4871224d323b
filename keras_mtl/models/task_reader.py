"""An encoder and a learner together: examples in, answers out."""

from typing import Any

import keras
from keras import ops


class TaskReader:
    """Calls the encoder and then the learner, for supports, queries or both.

    Args:
        learner: A `keras_mtl.learners.Learner`.
        encoder: A layer from examples `(n, ...)` to features `(n, D)`, or `None`.
        dtype: Dtype of the numbers that the first of them reads.
    """

    def __init__(
        self, learner: Any, encoder: keras.layers.Layer | None, dtype: str
    ) -> None:
        self.learner = learner
        self.encoder = encoder
        self.dtype = dtype
        self._of_support = getattr(encoder, "reads_support", False)

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns phi; with it the moments of an encoder that reads the support."""
        if self._of_support:
            features, state = self.encoder.adapt(support_x, support_mask)
            phi = self.learner.adapt(features, support_y, support_mask)
            return {"learner": phi, "encoder": state}
        return self.learner.adapt(self._encode(support_x), support_y, support_mask)

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`."""
        features = self._query_features(phi, query_x)
        return self.learner.predict(self._of_learner(phi), features)

    def sample(self, phi: Any, query_x: Any, noise: Any) -> Any:
        """Returns functions of a latent learner at the queries."""
        features = self._query_features(phi, query_x)
        return self.learner.functions(self._of_learner(phi), features, noise)

    def features(
        self, support_x: Any, support_mask: Any, query_x: Any, mode: dict | None = None
    ) -> tuple[Any, Any]:
        """Returns features of support and queries, from one call of the encoder.

        Args:
            support_x: Examples `(B, S, ...)`.
            support_mask: Whether each is there `(B, S)`.
            query_x: Examples `(B, Q, ...)`.
            mode: Arguments of the call, such as `training`.
        """
        if self.encoder is None:
            return self._encode(support_x), self._encode(query_x)
        if self._of_support:
            support_x, state = self.encoder.adapt(support_x, support_mask)
            return support_x, self.encoder.encode(state, query_x)
        examples = ops.shape(support_x)[1]
        both = self._encode(ops.concatenate([support_x, query_x], axis=1), mode)
        return both[:, :examples], both[:, examples:]

    def _of_learner(self, phi: Any) -> Any:
        return phi["learner"] if self._of_support else phi

    def _query_features(self, phi: Any, query_x: Any) -> Any:
        if self._of_support:
            return self.encoder.encode(phi["encoder"], query_x)
        return self._encode(query_x)

    def _encode(self, x: Any, mode: dict | None = None) -> Any:
        """Returns features `(B, n, D)` of examples `(B, n, ...)`."""
        if self.encoder is None:
            return self._as_numbers(x)
        rows = self._as_numbers(ops.reshape(x, (-1, *x.shape[2:])))
        features = self.encoder(rows, **(mode or {}))
        return ops.reshape(features, (-1, ops.shape(x)[1], *features.shape[1:]))

    def _as_numbers(self, x: Any) -> Any:
        """Returns floats, so that layers can read them: images come as integers."""
        x = ops.convert_to_tensor(x)
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
            return x
        return ops.cast(x, self.dtype)
