"""Convolutions as products of matrices."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mtl")
class PatchConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, computed as one product of patches and kernel.

    The numbers under the kernel at each position, its patch, are put side by side, and
    patches are multiplied with the kernel:

    $$ y_p = \\sum_k \\text{patch}_{pk} W_k $$

    Weights and results are those of a `Conv2D`; patches take kernel height x kernel
    width times the memory of the images.

    Where each task has a kernel of its own, as within `MAML`, a convolution is a loop
    over tasks on TensorFlow and one of as many groups as tasks elsewhere, which is slow
    on CPUs, and which Keras on PyTorch cannot do for `channels_last`. Products of
    matrices are fast on all of them. On JAX they are also the faster way of one kernel
    for all, on a CPU.

    Args:
        *args: Arguments of `keras.layers.Conv2D`.
        **kwargs: Arguments of `keras.layers.Conv2D`. `data_format` defaults to
            `"channels_last"`.

    Raises:
        ValueError: If `data_format` is another, if `groups` is not 1, or if at a call
            height or width of the images are not known, or less than the kernel needs.

    Example:

    ```python
    layer = keras_mtl.learners.PatchConv2D(8, 3, strides=2, padding="same")
    assert layer(np.zeros((2, 28, 28, 1))).shape == (2, 14, 14, 8)
    ```
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) < 5:
            kwargs.setdefault("data_format", "channels_last")
        super().__init__(*args, **kwargs)
        if self.data_format != "channels_last" or self.groups != 1:
            raise ValueError(
                "`PatchConv2D` needs data_format='channels_last' and groups=1. "
                f"Received: data_format={self.data_format!r}, groups={self.groups}"
            )

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Returns the product of patches `(n, h, w, k)` and kernel `(k, filters)`."""
        patches = self.patches(inputs)
        depth, filters = patches.shape[-1], kernel.shape[-1]
        product = ops.matmul(
            ops.reshape(patches, (-1, depth)), ops.reshape(kernel, (depth, filters))
        )
        return ops.reshape(product, (-1, *patches.shape[1:3], filters))

    def patches(self, images: Any) -> Any:
        """Returns the numbers under the kernel at each position `(n, h, w, k)`.

        Args:
            images: `(n, H, W, channels)`.
        """
        if None in images.shape[1:3]:
            raise ValueError(
                "`PatchConv2D` needs images of known height and width. "
                f"Received: shape {tuple(images.shape)}"
            )
        (rows, row_padding), (columns, column_padding) = (
            _positions(*sizes, self.padding)
            for sizes in zip(
                images.shape[1:3],
                self.kernel_size,
                self.strides,
                self.dilation_rate,
                strict=True,
            )
        )
        if rows < 1 or columns < 1:
            raise ValueError(
                "Images must be at least as large as the kernel. Received: shape "
                f"{tuple(images.shape)}, kernel_size={self.kernel_size}, "
                f"dilation_rate={self.dilation_rate}"
            )
        # `ops.image.extract_patches` convolves with an identity, which is what is slow.
        padded = ops.pad(images, [(0, 0), row_padding, column_padding, (0, 0)])
        return ops.concatenate(
            [
                padded[
                    :,
                    i : i + (rows - 1) * self.strides[0] + 1 : self.strides[0],
                    j : j + (columns - 1) * self.strides[1] + 1 : self.strides[1],
                ]
                for i in _offsets(self.kernel_size[0], self.dilation_rate[0])
                for j in _offsets(self.kernel_size[1], self.dilation_rate[1])
            ],
            axis=-1,
        )


def _offsets(kernel_size: int, dilation: int) -> range:
    return range(0, kernel_size * dilation, dilation)


def _positions(
    size: int, kernel_size: int, stride: int, dilation: int, padding: str
) -> tuple[int, tuple[int, int]]:
    """Returns how many positions there are along an axis, and what to pad it with."""
    reach = (kernel_size - 1) * dilation + 1
    if padding == "valid":
        return (size - reach) // stride + 1, (0, 0)
    positions = -(-size // stride)
    lacking = max((positions - 1) * stride + reach - size, 0)
    return positions, (lacking // 2, lacking - lacking // 2)
