"""Normalisation by the moments of the support."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mtl")
class SupportNormalization(keras.layers.Layer):
    """Normalises images of an episode, each channel by the moments of the support.

    $$ y = \\gamma \\frac{x - \\mu_S}{\\sqrt{\\sigma_S^2 + \\epsilon}} + \\beta $$

    with mean and variance over examples and positions of the support: queries do not
    enter.

    Args:
        epsilon: Number. Defaults to 1e-3.
        **kwargs: Arguments of `keras.layers.Layer`.

    Reference:
        Bronskill et al., "TaskNorm", ICML 2020, https://arxiv.org/abs/2003.03284
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.epsilon = epsilon
        self.gamma = None
        self.beta = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates scale and offset of each channel."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def adapt(self, x: Any, mask: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the support normalised, and its moments.

        Args:
            x: Support `(B, S, H, W, C)`.
            mask: Whether each example is there `(B, S)`.
        """
        if not self.built:
            self.build(x.shape)
            self.built = True
        exact = ops.cast(x, "float32")
        weight = ops.cast(mask, "float32")[:, :, None, None, None]
        positions = x.shape[2] * x.shape[3]
        count = ops.maximum(ops.sum(weight, axis=(1, 2, 3, 4)), 1.0) * positions
        count = count[:, None]
        mean = ops.sum(weight * exact, axis=(1, 2, 3)) / count  # B, C
        centred = exact - mean[:, None, None, None, :]
        variance = ops.sum(weight * centred**2, axis=(1, 2, 3)) / count
        moments = {"mean": mean, "variance": variance}
        return self.apply(x, moments), moments

    def apply(self, x: Any, moments: dict[str, Any]) -> Any:
        """Returns images `(B, n, H, W, C)`, normalised by these moments `(B, C)`."""
        scale = self.gamma / ops.sqrt(moments["variance"] + self.epsilon)  # B, C
        shift = self.beta - scale * moments["mean"]
        scale, shift = (t[:, None, None, None, :] for t in (scale, shift))
        return ops.cast(scale * ops.cast(x, "float32") + shift, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "epsilon": self.epsilon}
