"""Two handwritten digits laid over one another, and three tasks about them."""

import numpy as np

from keras_mtl.datasets.multi_task_data import MultiTaskData, Split

TASKS = ("left", "right", "sum")
_SIDE = 8
_BRIGHTEST = 16.0


def load_overlaid_digits(
    train_size: int = 6000,
    validation_size: int = 1000,
    test_size: int = 1500,
    width: int = 12,
    seed: int = 0,
) -> MultiTaskData:
    """Pairs of scikit-learn's handwritten digits on one canvas.

    One digit lies at the left edge, another at the right; where they overlap the
    brighter pixel is seen. The images are real, 8x8 pixels, and come with
    scikit-learn: no network and no file is needed.

    Tasks: `"left"` and `"right"`, which digit it is (class 0 to 9, int32), and
    `"sum"` of the two (regression, float32). Training, validation and test images
    are made from different source images (60 %, 20 % and 20 % of 1797).

    Args:
        train_size: Number of training images. Defaults to `6000`.
        validation_size: Number of validation images. Defaults to `1000`.
        test_size: Number of test images. Defaults to `1500`.
        width: Width of the canvas, 8 to 16: the digits overlap by `16 - width`
            columns. Defaults to `12`.
        seed: Non-negative integer, of the split and the pairs. Defaults to `0`.

    Returns:
        A `MultiTaskData`; `x` is float32 `(n, 8, width, 1)` from 0 to 1. `meta` has
        `"source_rows"`: for each split the rows of `sklearn.datasets.load_digits()`
        that it was made of.

    Raises:
        ValueError: for a width or a size out of range.
        ImportError: if scikit-learn is missing.

    Example:

    ```python
    data = keras_mtl.datasets.load_overlaid_digits(train_size=100)
    print(data.train.x.shape)  # (100, 8, 12, 1)
    print(data.train.y["left"][0] + data.train.y["right"][0], data.train.y["sum"][0])
    ```

    Reference:
        The overlaid digits of Sabour, Frosst and Hinton, "Dynamic Routing Between
        Capsules", NeurIPS 2017, https://arxiv.org/abs/1710.09829; the images: E.
        Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
        https://archive.ics.uci.edu/dataset/80
    """
    if not _SIDE <= width <= 2 * _SIDE:
        raise ValueError(
            f"`width` must be from {_SIDE} to {2 * _SIDE}. Received: width={width}"
        )
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(
                f"`{name}_size` must be at least 1. Received: {name}_size={size}"
            )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn. Install it with "
            '`pip install "keras_mtl[recipes]"`.'
        ) from error
    source = load_digits()
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(source.target))
    ends = [int(0.6 * len(order)), int(0.8 * len(order))]
    source_rows = dict(zip(sizes, np.split(order, ends), strict=True))
    splits = {
        name: _overlaid(
            source.images, source.target, source_rows[name], size, width, generator
        )
        for name, size in sizes.items()
    }
    return MultiTaskData("overlaid_digits", **splits, meta={"source_rows": source_rows})


def _overlaid(images, classes, rows, size, width, generator):
    left, right = rows[generator.integers(0, len(rows), (2, size))]
    canvas = np.zeros((size, _SIDE, width, 1), "float32")
    canvas[:, :, :_SIDE, 0] = images[left]
    beneath = canvas[:, :, width - _SIDE :, 0]
    np.maximum(beneath, images[right], out=beneath, casting="same_kind")
    digits = classes.astype("int32")
    labels = {
        "left": digits[left],
        "right": digits[right],
        "sum": (digits[left] + digits[right]).astype("float32"),
    }
    return Split(canvas / np.float32(_BRIGHTEST), labels)
