"""Images to feature vectors, without a leak between support and queries."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_count
from keras_mtl.learners.channel_normalization import (
    BatchMoments,
    GroupMoments,
    SupportMoments,
)
from keras_mtl.learners.patch_convolution import PatchConv2D

NORMS = ("group", "layer", "batch", "support", "none")
POOLS = ("max", "stride")
CONVOLUTIONS = ("auto", "direct", "patches")


@keras.saving.register_keras_serializable("keras_mtl")
class ConvolutionalEncoder(keras.layers.Layer):
    """Blocks of convolution, normalisation, ReLU and halving; then a vector.

    `norm` says which moments an image is normalised with:

    - `"group"`: its own, over groups of channels;
    - `"layer"`: its own, over all channels;
    - `"support"`: those of the support of its episode;
    - `"batch"`: in training those of all images of the batch, support and queries of
      all episodes; at inference their running averages;
    - `"none"`: none.

    With none of them does the answer to a query depend on other queries at inference.
    With `"batch"` it does in training (much published code has that leak at test time
    as well).

    Args:
        filters: Integer, or a list of one for each block. Defaults to 64.
        blocks: Integer, number of blocks. Defaults to 4.
        norm: `"group"`, `"layer"`, `"batch"`, `"support"` or `"none"`. Defaults to
            `"group"`.
        groups: Integer, number of groups for `"group"`; it divides the filters.
            Defaults to 8.
        pool: `"max"` for 2 x 2 max-pooling, `"stride"` for a stride of 2, which
            computes a quarter of the positions. Defaults to `"max"`.
        embedding_dim: Integer, units of a dense layer at the end. Defaults to
            `None`, no such layer: all positions of the last block.
        rescale: Number that pixels are multiplied with, such as `1 / 255`. Defaults
            to 1.
        convolution: `"direct"` for `keras.layers.Conv2D`, `"patches"` for
            `PatchConv2D`, which has the same weights and results. Defaults to
            `"auto"`: patches on JAX on a CPU, where XLA convolves slowly, direct
            elsewhere.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(n, H, W, C)`, or `(n, H, W)` for one channel; any number type.

    Output shape:
        `(n, D)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    encoder = keras_mtl.learners.ConvolutionalEncoder(pool="stride")
    assert encoder(np.zeros((3, 28, 28), "uint8")).shape == (3, 256)
    ```

    Reference:
        Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016,
        https://arxiv.org/abs/1606.04080; Wu and He, "Group Normalization", ECCV 2018,
        https://arxiv.org/abs/1803.08494
    """

    def __init__(
        self,
        filters: int | list[int] = 64,
        blocks: int = 4,
        norm: str = "group",
        groups: int = 8,
        pool: str = "max",
        embedding_dim: int | None = None,
        rescale: float = 1.0,
        convolution: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.blocks = check_count("blocks", blocks)
        given = filters if isinstance(filters, list | tuple) else [filters] * blocks
        if len(given) != blocks:
            raise ValueError(
                "`filters` must be one number, or one for each block. "
                f"Received: filters={filters}, blocks={blocks}"
            )
        self.filters = [check_count("filters", count) for count in given]
        self.norm = check_choice("norm", norm, NORMS)
        self.groups = check_count("groups", groups)
        if norm == "group" and any(count % groups for count in self.filters):
            raise ValueError(
                "`groups` must divide the filters. "
                f"Received: groups={groups}, filters={filters}"
            )
        self.pool = check_choice("pool", pool, POOLS)
        self.embedding_dim = embedding_dim
        self.rescale = rescale
        self.convolution = check_choice("convolution", convolution, CONVOLUTIONS)
        patches = convolution == "patches" or (
            convolution == "auto" and _convolves_slowly()
        )
        dtype = self.dtype_policy
        self.convolutions = [
            BlockConv2D(
                patches,
                count,
                3,
                strides=2 if pool == "stride" else 1,
                padding="same",
                use_bias=norm == "none",
                data_format="channels_last",
                dtype=dtype,
            )
            for count in self.filters
        ]
        self.norms = [self._make_norm() for _ in self.filters]
        self.dense = None
        if embedding_dim is not None:
            self.dense = keras.layers.Dense(
                check_count("embedding_dim", embedding_dim), dtype=dtype
            )

    @property
    def reads_support(self) -> bool:
        """Whether images are normalised with moments of the support."""
        return self.norm == "support"

    def call(self, images: Any) -> Any:
        """Returns vectors `(n, D)`."""
        if self.reads_support:
            raise ValueError(
                "With norm='support' an image needs the support of its episode: use "
                "`adapt` and `encode`, as `MetaModel` does. Received: images alone"
            )
        x = self._pixels(images)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x)
            x = self._pooled(x) if norm is None else norm(x, pool=self._pooled)
            x = self._rectified(x)
        return self._vector(x)

    def adapt(self, support_x: Any, support_mask: Any) -> tuple[Any, list[Any]]:
        """Returns the vectors of supports, and the moments of every block.

        Args:
            support_x: Images `(B, S, H, W, C)`.
            support_mask: Whether each is there `(B, S)`.
        """
        examples = ops.shape(support_x)[1]
        x = self._pixels(_merge(support_x))
        state = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x)
            state.append(norm.adapt(_part(x, examples), support_mask))
            x = norm.of_images(x, state[-1], examples, self._pooled)
            x = self._rectified(x)
        return _part(self._vector(x), examples), state

    def encode(self, state: list[Any], query_x: Any) -> Any:
        """Returns the vectors of queries `(B, Q, D)`.

        Args:
            state: The moments that `adapt` returned.
            query_x: Images `(B, Q, H, W, C)`.
        """
        examples = ops.shape(query_x)[1]
        x = self._pixels(_merge(query_x))
        for convolution, norm, moments in zip(
            self.convolutions, self.norms, state, strict=True
        ):
            x = convolution(x)
            x = self._rectified(norm.of_images(x, moments, examples, self._pooled))
        return _part(self._vector(x), examples)

    def _pixels(self, images: Any) -> Any:
        x = ops.cast(images, self.compute_dtype)
        if len(x.shape) == 3:
            x = x[..., None]
        if len(x.shape) != 4:
            raise ValueError(
                "Images must have shape (n, height, width, channels) or (n, height, "
                f"width). Received: shape {tuple(images.shape)}"
            )
        return x if self.rescale == 1 else x * self.rescale

    def _pooled(self, x: Any) -> Any:
        return _without_copies(_max_pool, x) if self.pool == "max" else x

    def _rectified(self, x: Any) -> Any:
        return ops.relu(ops.cast(x, self.compute_dtype))

    def _vector(self, x: Any) -> Any:
        height, width, channels = x.shape[1:]
        x = ops.reshape(x, (-1, height * width * channels))
        return x if self.dense is None else self.dense(x)

    def _make_norm(self) -> keras.layers.Layer | None:
        dtype = self.dtype_policy
        if self.norm in ("group", "layer"):
            groups = self.groups if self.norm == "group" else 1
            return GroupMoments(groups, dtype=dtype)
        if self.norm == "batch":
            return BatchMoments(dtype=dtype)
        if self.norm == "support":
            return SupportMoments(dtype=dtype)
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "blocks": self.blocks,
            "norm": self.norm,
            "groups": self.groups,
            "pool": self.pool,
            "embedding_dim": self.embedding_dim,
            "rescale": self.rescale,
            "convolution": self.convolution,
        }


def conv4(filters: int = 64, **kwargs: Any) -> ConvolutionalEncoder:
    """Returns the encoder of four blocks that few-shot learning is compared with.

    Args:
        filters: Integer, filters of each block. Defaults to 64.
        **kwargs: Arguments of `ConvolutionalEncoder`: `norm`, `pool`,
            `embedding_dim`, `rescale`, `convolution`.

    Example:

    ```python
    encoder = keras_mtl.learners.conv4(norm="layer", pool="stride")
    ```
    """
    return ConvolutionalEncoder(filters, blocks=4, **kwargs)


class BlockConv2D(PatchConv2D):
    """A convolution that is computed either way.

    One class for both, as files of weights have the names of classes in them: what one
    backend has saved is loaded on another.
    """

    def __init__(self, patches: bool, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by_patches = patches

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Returns the convolution of images `(n, h, w, filters)`."""
        if self.by_patches:
            return super().convolution_op(inputs, kernel)

        def convolve(images: Any, data_format: str) -> Any:
            return ops.conv(
                images,
                kernel,
                strides=list(self.strides),
                padding=self.padding,
                data_format=data_format,
                dilation_rate=self.dilation_rate,
            )

        return _without_copies(convolve, inputs)


def _max_pool(images: Any, data_format: str) -> Any:
    """Returns the maxima of 2 x 2 positions each."""
    return ops.max_pool(images, 2, strides=2, data_format=data_format)


def _without_copies(operation: Callable[[Any, str], Any], images: Any) -> Any:
    """Returns what an operation makes of images `(n, H, W, C)`, in that layout.

    Keras on PyTorch copies images to channels first and back for each convolution.
    PyTorch itself takes a view of the same memory, and is the faster for it.
    """
    if keras.backend.backend() != "torch":
        return operation(images, "channels_last")
    views = ops.transpose(images, (0, 3, 1, 2))
    return ops.transpose(operation(views, "channels_first"), (0, 2, 3, 1))


def _convolves_slowly() -> bool:
    if keras.backend.backend() != "jax":
        return False
    return all("cpu" in device for device in keras.distribution.list_devices())


def _merge(x: Any) -> Any:
    """Returns `(B S, ...)` of `(B, S, ...)`."""
    return ops.reshape(x, (-1, *x.shape[2:]))


def _part(x: Any, examples: Any) -> Any:
    """Returns `(B, S, ...)` of `(B S, ...)`."""
    return ops.reshape(x, (-1, examples, *x.shape[1:]))
