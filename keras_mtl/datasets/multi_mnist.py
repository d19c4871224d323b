"""MultiMNIST: two digits of MNIST laid over one another, each a task."""

import os

import numpy as np

from keras_mtl.datasets.data_directory import PublicFile, data_directory, find_file
from keras_mtl.datasets.loader_arguments import public_file
from keras_mtl.datasets.multi_task_data import MultiTaskData, Split

TASKS = ("left", "right")
PREPARED = {
    "mnist_small.npz": (
        "12d912192e224e82c97102fe5a39e736e43f5c3935bc17ba53603af43628390f"
    )
}
# The file and the sha256 of keras.datasets.mnist.
PUBLIC = PublicFile(
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    checksum="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)
_SIDE = 28
_CANVAS = 36
# What the prepared file has of MNIST.
_PREPARED_DIGITS = (6000, 1500)


def load_multi_mnist(
    data_dir: str | os.PathLike | None = None,
    train_size: int = 10_000,
    validation_size: int = 2_000,
    test_size: int = 3_000,
    train_digits: int = 6_000,
    test_digits: int = 1_500,
    seed: int = 0,
    download: bool = True,
    data_url: str | None = None,
    sha256: str | None = None,
) -> MultiTaskData:
    """MultiMNIST: which digit is at the top left, which at the bottom right?

    Two digits of MNIST on a canvas of 36x36 pixels, one in the top left corner, one
    in the bottom right; where they overlap the brighter pixel is seen, and the whole
    is brought back to 28x28 (see `overlay`).

    Tasks: `"left"` and `"right"`, the class 0 to 9 of either digit. Both are drawn
    at random, whatever their classes. Test images are made of MNIST's test digits;
    of its training digits a sixth, drawn at random, is for validation images and the
    others for training images, so that no digit is in two splits.

    A prepared file (`mnist_small.npz`, the first 6000 training and 1500 test digits)
    is looked for in the data directory if those are enough; else Keras's `mnist.npz`,
    which is fetched where it is not there.

    Args:
        data_dir: Directory of the file. Defaults to that of
            `keras_mtl.datasets.data_directory`.
        train_size: Number of training images. Defaults to `10000`.
        validation_size: Number of validation images. Defaults to `2000`.
        test_size: Number of test images. Defaults to `3000`.
        train_digits: Number of MNIST's training digits to draw from, the first
            ones: 6 to 60000. Defaults to `6000`.
        test_digits: Number of MNIST's test digits to draw from, the first ones: 1 to
            10000. Defaults to `1500`.
        seed: Non-negative integer, of the split and the pairs. Defaults to `0`.
        download: Whether to fetch a file that is not there. Defaults to `True`.
        data_url: Where to fetch it. Defaults to Keras's copy of MNIST.
        sha256: Checksum of the file at `data_url`, which it needs.

    Returns:
        A `MultiTaskData`. `x` is float32 `(n, 28, 28, 1)` from 0 to 1, labels are
        int32 `(n,)`. `meta` has `"source_rows"`: for each split the positions of the
        left and the right digits, int `(2, n)`, in MNIST's training or test part.

    Raises:
        FileNotFoundError: if there is no file and none could be fetched; the message
            says what to do.
        ValueError: for wrong arguments, or a file of another checksum.

    Example:

    ```
    data = keras_mtl.datasets.load_multi_mnist(data_dir="data")
    model.fit(*data.train, validation_data=data.validation)
    ```

    Reference:
        Sabour, Frosst and Hinton, "Dynamic Routing Between Capsules", NeurIPS 2017,
        https://arxiv.org/abs/1710.09829; as two tasks: Sener and Koltun, "Multi-Task
        Learning as Multi-Objective Optimization", NeurIPS 2018,
        https://arxiv.org/abs/1810.04650; the digits: LeCun, Cortes and Burges, MNIST
        (CC BY-SA 3.0)
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(
                f"`{name}_size` must be at least 1. Received: {name}_size={size}"
            )
    _check_digits("train_digits", train_digits, 6, 60_000)
    _check_digits("test_digits", test_digits, 1, 10_000)
    if data_url is not None and sha256 is None:
        raise ValueError(
            "`data_url` needs the `sha256` of the file there. "
            f"Received: data_url={data_url!r}, sha256=None"
        )
    has_enough = all(
        asked <= there
        for asked, there in zip(
            (train_digits, test_digits), _PREPARED_DIGITS, strict=True
        )
    )
    path = find_file(
        data_directory(data_dir),
        PREPARED if has_enough else {},
        public_file(PUBLIC, data_url, sha256),
        download,
    )
    with np.load(path, allow_pickle=False) as mnist:
        train = mnist["x_train"][:train_digits], mnist["y_train"][:train_digits]
        test = mnist["x_test"][:test_digits], mnist["y_test"][:test_digits]

    generator = np.random.default_rng(seed)
    order = generator.permutation(len(train[0]))
    validation_rows, train_rows = np.split(order, [len(order) // 6])
    rows = {
        "train": train_rows,
        "validation": validation_rows,
        "test": np.arange(len(test[0])),
    }
    pairs = {
        name: rows[name][generator.integers(0, len(rows[name]), (2, size))]
        for name, size in sizes.items()
    }

    def split(name):
        images, classes = test if name == "test" else train
        left, right = pairs[name]
        x = overlay(images[left], images[right])[..., None] / np.float32(255)
        digits = classes.astype("int32")
        return Split(x, {"left": digits[left], "right": digits[right]})

    return MultiTaskData(
        "multi_mnist",
        **{name: split(name) for name in sizes},
        meta={"source_rows": pairs, "path": str(path)},
    )


def overlay(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Lays digits over one another: the left ones at the top left of a canvas.

    The canvas has 36x36 pixels; the right digits lie 8 pixels lower and further to
    the right. It is brought to 28x28 by the nearest pixel, as in the code of Sener
    and Koltun, whose right digits are shifted by 6 and leave a rim of 2.

    Args:
        left: Images `(n, 28, 28)`.
        right: Images `(n, 28, 28)` of the same dtype.

    Returns:
        Array `(n, 28, 28)` of that dtype.

    Example:

    ```python
    from keras_mtl.datasets.multi_mnist import overlay

    left, right = np.full((1, 28, 28), 1), np.full((1, 28, 28), 2)
    print(overlay(left, right)[0, [0, 14, 27], [0, 14, 27]])  # [1 2 2]
    ```
    """
    canvas = np.zeros((len(left), _CANVAS, _CANVAS), left.dtype)
    canvas[:, :_SIDE, :_SIDE] = left
    beneath = canvas[:, -_SIDE:, -_SIDE:]
    np.maximum(beneath, right, out=beneath)
    nearest = ((np.arange(_SIDE) + 0.5) * _CANVAS / _SIDE).astype("int64")
    return canvas[:, nearest[:, None], nearest]


def _check_digits(name, number, least, most):
    if not least <= number <= most:
        raise ValueError(
            f"`{name}` must be from {least} to {most}. Received: {name}={number}"
        )
