"""Normalisation of images as a factor and a shift of each channel.

$$ y = |\\gamma| \\frac{x - \\mu}{\\sqrt{\\sigma^2 + \\epsilon}} + \\beta = a x + b $$

The moments are of x, and `a` is not negative, so that what keeps the order of numbers,
such as max-pooling, may come between the two: the maximum of normalised numbers is the
normalised maximum. After it there is a quarter of the positions. A channel whose γ was
negative is that of the negative filter with |γ|: networks are the same.

Where the backend has one operation for moments and normalisation together, that is
faster still, and pooling comes after it.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mtl.engine.normalization import batch_normalization

Pool = Callable[[Any], Any]


def _as_it_is(x: Any) -> Any:
    return x


class ChannelNormalization(keras.layers.Layer):
    """Factor and shift of each channel, from moments that a subclass takes.

    Where it is called with images it takes `pool`, a function that keeps the order of
    numbers and that the result goes through, such as max-pooling.

    Args:
        epsilon: Number. Defaults to 1e-3.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.epsilon = epsilon
        self.gamma = None
        self.beta = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates γ and β of each channel."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def factor_and_shift(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        """Returns `a` and `b` for moments `(..., C)`."""
        gamma, beta = self.positive_gamma_and_beta()
        factor = gamma / ops.sqrt(variance + self.epsilon)
        return factor, beta - factor * mean

    def positive_gamma_and_beta(self) -> tuple[Any, Any]:
        """Returns |γ| and β `(C,)`, in float32."""
        gamma, beta = ops.abs(self.gamma), ops.convert_to_tensor(self.beta)
        return ops.cast(gamma, "float32"), ops.cast(beta, "float32")

    def normalize(self, x: Any, factor: Any, shift: Any, pool: Pool) -> Any:
        """Returns images times the factor plus the shift, pooled, in float32."""
        return factor * ops.cast(pool(x), "float32") + shift


@keras.saving.register_keras_serializable("keras_mtl")
class BatchMoments(ChannelNormalization):
    """Moments of all images in training, their running averages at inference.

    Args:
        momentum: Number, how much of a running average is kept at a step. Defaults to
            0.9.
        **kwargs: Arguments of `ChannelNormalization`.

    Reference:
        Ioffe and Szegedy, "Batch Normalization", ICML 2015,
        https://arxiv.org/abs/1502.03167
    """

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.moving_mean = None
        self.moving_variance = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates γ, β and the running averages of each channel."""
        super().build(input_shape)
        self.moving_mean, self.moving_variance = (
            self.add_weight(
                shape=(input_shape[-1],),
                initializer=initializer,
                name=name,
                dtype="float32",
                trainable=False,
                autocast=False,
            )
            for name, initializer in (
                ("moving_mean", "zeros"),
                ("moving_variance", "ones"),
            )
        )

    def call(self, x: Any, pool: Pool = _as_it_is, training: bool = False) -> Any:
        """Returns normalised images, of images `(n, H, W, C)`."""
        if not training or not self.trainable:
            both = self.factor_and_shift(
                self.moving_mean.value, self.moving_variance.value
            )
            return self.normalize(x, *both, pool)
        if batch_normalization is None:
            mean, variance = _moments(ops.cast(x, "float32"), (0, 1, 2))
            both = self.factor_and_shift(mean, variance)
            normalised = self.normalize(x, *both, pool)
        else:
            normalised, mean, variance = batch_normalization(
                ops.cast(x, "float32"), *self.positive_gamma_and_beta(), self.epsilon
            )
            normalised = pool(normalised)
        for average, found in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            kept = self.momentum * average.value
            average.assign(kept + (1 - self.momentum) * ops.stop_gradient(found))
        return normalised


@keras.saving.register_keras_serializable("keras_mtl")
class GroupMoments(ChannelNormalization):
    """Moments of each image over groups of channels.

    Args:
        groups: Integer, number of groups.
        **kwargs: Arguments of `ChannelNormalization`.

    Reference:
        Wu and He, "Group Normalization", ECCV 2018, https://arxiv.org/abs/1803.08494
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x: Any, pool: Pool = _as_it_is) -> Any:
        """Returns normalised images, of images `(n, H, W, C)`."""
        height, width, channels = x.shape[1:]
        size = channels // self.groups
        grouped = ops.reshape(x, (-1, height * width, self.groups, size))
        moments = _moments(ops.cast(grouped, "float32"), (1, 3))
        mean, variance = (ops.repeat(each, size, axis=-1) for each in moments)
        both = self.factor_and_shift(mean[:, None, None], variance[:, None, None])
        return self.normalize(x, *both, pool)


@keras.saving.register_keras_serializable("keras_mtl")
class SupportMoments(ChannelNormalization):
    """Moments of the support of each episode: queries do not enter.

    Args:
        **kwargs: Arguments of `ChannelNormalization`.

    Reference:
        Bronskill et al., "TaskNorm", ICML 2020, https://arxiv.org/abs/2003.03284
    """

    def adapt(self, x: Any, mask: Any) -> dict[str, Any]:
        """Returns mean and variance `(B, C)` over examples and positions.

        Args:
            x: Support `(B, S, H, W, C)`.
            mask: Whether each example is there `(B, S)`.
        """
        if not self.built:
            self.build(x.shape)
            self.built = True
        x = ops.cast(x, "float32")
        weight = ops.cast(mask, "float32")[:, :, None, None, None]
        positions = x.shape[2] * x.shape[3]
        count = ops.maximum(ops.sum(weight, axis=(1, 2, 3, 4)), 1.0) * positions
        count = count[:, None]
        mean = ops.sum(weight * x, axis=(1, 2, 3)) / count
        centred = x - mean[:, None, None, None, :]
        variance = ops.sum(weight * centred**2, axis=(1, 2, 3)) / count
        return {"mean": mean, "variance": variance}

    def of_images(
        self,
        x: Any,
        moments: dict[str, Any],
        examples: Any,
        pool: Pool = _as_it_is,
    ) -> Any:
        """Returns normalised images.

        Args:
            x: Images `(B n, H, W, C)`, n of each of B episodes.
            moments: What `adapt` has returned for these episodes.
            examples: The number n.
            pool: As in the other classes.
        """
        both = self.factor_and_shift(moments["mean"], moments["variance"])
        factor, shift = (ops.repeat(each, examples, axis=0) for each in both)
        return self.normalize(x, factor[:, None, None], shift[:, None, None], pool)


def _moments(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Returns mean and variance over some axes."""
    shape = ops.shape(x)
    count = ops.cast(math.prod(shape[axis] for axis in axes), "float32")
    # A sum is differentiated without a tensor of the size of x, which a mean is not.
    mean = ops.sum(x, axis=axes, keepdims=True) / count
    # The derivative of the variance by its mean is 0.
    centred = x - ops.stop_gradient(mean)
    return ops.squeeze(mean, axes), ops.sum(ops.square(centred), axis=axes) / count
