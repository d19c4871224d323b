"""Omniglot: 1623 handwritten characters, each drawn by twenty people."""

import os
import warnings
from dataclasses import dataclass

import numpy as np

from keras_mtl.argument_checks import check_choice, check_count
from keras_mtl.data.class_split import ClassSplit
from keras_mtl.datasets.data_directory import (
    ENVIRONMENT_VARIABLE,
    PublicFile,
    data_directory,
    find_file,
)

SPLITS = ("vinyals", "lake", "random")
PREPARED = {
    "omniglot_28_bits.npz": (
        "c530edc915967ef99bc08dc2771a1722f441e07a2a324c8f5d7c7639fd44f478"
    )
}
# What is made of the images of TFDS, and kept.
CACHED = "omniglot_28_bits_tfds.npz"
PUBLIC = PublicFile(
    "https://www.tensorflow.org/datasets/catalog/omniglot", other_names=(CACHED,)
)
_SIDE = 28
_DRAWERS = 20
_CHARACTERS = 1623
_BACKGROUND = 964
_ALPHABETS = 50
_RANDOM_ENDS = (1100, 1200)
# Numbers of the characters in the official release, which its files are named by: the
# validation alphabets (Armenian, Bengali, Early Aramaic, Hebrew, Mkhedruli), first and
# last, and the last of the characters that are not for the test.
_VINYALS_VALIDATION = ((27, 67), (132, 177), (251, 272), (466, 487), (729, 769))
_VINYALS_LAST = 1200
# With a half, thin strokes would break where they lie on the border of two pixels.
_INK = 0.3
_BATCH = 256


@dataclass(frozen=True, eq=False)
class OmniglotData:
    """Images of handwritten characters, and a split of the characters.

    Attributes:
        images: uint8 `(n, 28, 28)`, 1 for ink and 0 for paper.
        labels: int32 `(n,)`, the character.
        alphabets: int32 `(n,)`, the alphabet of the character.
        drawers: int32 `(n,)`, who drew it, 1 to 20 in each alphabet; `None` where the
            source does not say.
        classes: A `keras_mtl.data.ClassSplit` of the characters.
    """

    images: np.ndarray
    labels: np.ndarray
    alphabets: np.ndarray
    drawers: np.ndarray | None
    classes: ClassSplit


def load_omniglot(
    data_dir: str | os.PathLike | None = None,
    split: str = "vinyals",
    seed: int = 0,
    download: bool = False,
) -> OmniglotData:
    """Omniglot: 1623 characters of 50 alphabets, each drawn by the same 20 people.

    32460 images of 28x28 pixels, the data set of few-shot classification: learn from
    many characters, then tell others apart after one drawing of each. Characters are
    numbered from 0 to 1622, alphabet by alphabet, the 30 "background" alphabets first.

    Which characters are trained on differs from paper to paper, and so do the figures:

    - `"vinyals"`: `train`, `validation` and `test` of 1028, 172 and 423 characters,
      as in most papers. Validation characters are five whole alphabets; one alphabet
      is partly in training and partly in the test. The protocol also takes characters
      turned by 90, 180 and 270 degrees for others: `Episodes(..., rotations=True)`.
    - `"lake"`: `train` of the 964 background characters (30 alphabets) and `test` of
      the 659 others (20 alphabets), as the data set was published: no alphabet is in
      both.
    - `"random"`: `train`, `validation` and `test` of 1100, 100 and 423 characters
      drawn by `seed`.

    A prepared file (`omniglot_28_bits.npz`) is looked for in the data directory; else
    `omniglot` of TensorFlow Datasets is read
    (`pip install "keras_mtl[datasets,tensorflow]"`) from where TFDS keeps its data.
    Its images of 105x105 pixels are brought to 28x28 by the mean of each area, and
    what is at least 30 % ink becomes ink: they need not be those of the prepared file
    pixel for pixel, and who drew them is not known. They are kept for the next time
    as `omniglot_28_bits_tfds.npz` in the data directory, if `data_dir` or the
    environment variable `KERAS_MTL_DATA` names one.

    Args:
        data_dir: Directory of the file. Defaults to that of
            `keras_mtl.datasets.data_directory`.
        split: `"vinyals"`, `"lake"` or `"random"`. Defaults to `"vinyals"`.
        seed: Non-negative integer, of the random split. Defaults to `0`.
        download: Whether TFDS may fetch the data set where it has not got it. It then
            needs the network, and without one it waits for minutes. Defaults to
            `False`.

    Returns:
        An `OmniglotData`: `images` uint8 `(32460, 28, 28)` of zeros and ones, 1 for
        ink; `labels`, `alphabets` and `drawers` int32 `(32460,)`; and `classes`, a
        `keras_mtl.data.ClassSplit`. `drawers` is `None` for images from TFDS.

    Raises:
        FileNotFoundError: if there is no file and TFDS has no data; the message says
            what to do.
        ImportError: if there is no file, and TFDS or TensorFlow is missing.
        ValueError: for wrong arguments, a file of another checksum, or data of TFDS
            that are not Omniglot, or in which the characters of `"vinyals"` cannot be
            told.

    Example:

    ```
    data = keras_mtl.datasets.load_omniglot(data_dir="data")
    train = keras_mtl.data.Episodes(
        data.images, data.labels, data.classes.train, ways=20, rotations=True
    )
    ```

    Reference:
        Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through
        probabilistic program induction", Science 350, 2015,
        https://doi.org/10.1126/science.aab3050; the split: Vinyals et al., "Matching
        Networks for One Shot Learning", NeurIPS 2016,
        https://arxiv.org/abs/1606.04080, with the validation characters of Snell,
        Swersky and Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017,
        https://arxiv.org/abs/1703.05175
    """
    check_choice("split", split, SPLITS)
    check_count("seed", seed, at_least=0)
    directory = data_directory(data_dir)
    try:
        path = find_file(directory, PREPARED, PUBLIC, download=False)
    except FileNotFoundError:
        arrays = _read_tfds(directory, download)
        if data_dir or os.environ.get(ENVIRONMENT_VARIABLE):
            _keep(arrays, directory / CACHED)
    else:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        _check_complete(arrays["character"], arrays["alphabet"], path)
    drawers = arrays.get("drawer")
    return OmniglotData(
        np.unpackbits(arrays["images"], axis=2, count=_SIDE),
        arrays["character"].astype("int32"),
        arrays["alphabet"].astype("int32"),
        None if drawers is None else drawers.astype("int32"),
        _split(split, seed, arrays),
    )


def shrink(images: np.ndarray) -> np.ndarray:
    """Brings drawings on white paper to 28x28 pixels of ink or no ink.

    A pixel of the result is the mean of the area that it covers, and ink if 30 % of
    that is black.

    Args:
        images: Array `(n, side, side, channels)` from 0, black, to 255, white. `side`
            is at least 28.

    Returns:
        uint8 `(n, 28, 28)`, 1 for ink.

    Example:

    ```python
    from keras_mtl.datasets.omniglot import shrink

    paper = np.full((1, 56, 56, 3), 255, "uint8")
    paper[:, :2, :1] = 0  # half of the first pixel
    print(shrink(paper)[0, 0, :3])  # [1 0 0]
    ```
    """
    ink = 1 - images.mean(axis=-1, dtype="float32") / 255
    side = images.shape[1]
    # Row i covers the pixels from edges[i] to edges[i + 1].
    edges = np.linspace(0, side, _SIDE + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(
        edges[:-1, None], pixels
    )
    weights = np.maximum(covered, 0) * (_SIDE / side)
    return (weights @ ink @ weights.T >= _INK - 1e-6).astype("uint8")


def _split(split, seed, arrays):
    characters = np.arange(_CHARACTERS)
    if split == "lake":
        return ClassSplit(train=characters[:_BACKGROUND], test=characters[_BACKGROUND:])
    if split == "random":
        order = np.random.default_rng(seed).permutation(_CHARACTERS)
        parts = [np.sort(part) for part in np.split(order, _RANDOM_ENDS)]
    else:
        part = _vinyals_part(arrays)
        parts = [characters[part == number] for number in range(3)]
    return ClassSplit(**dict(zip(("train", "validation", "test"), parts, strict=True)))


def _vinyals_part(arrays):
    """0, 1 or 2 for each character, by its number in the official release."""
    official = arrays["char_official_id"].astype("int64")
    alphabet = np.empty(_CHARACTERS, "int64")
    alphabet[arrays["character"]] = arrays["alphabet"]
    # There the numbers of an alphabet follow one another, the background has the
    # first, and the validation alphabets are whole.
    within = alphabet[1:] == alphabet[:-1]
    known = (
        np.array_equal(np.sort(official), np.arange(1, _CHARACTERS + 1))
        and (np.diff(official)[within] == 1).all()
        and official[:_BACKGROUND].max() == _BACKGROUND
    )
    part = np.where(official > _VINYALS_LAST, 2, 0)
    for first, last in _VINYALS_VALIDATION:
        inside = (first <= official) & (official <= last)
        owners = np.unique(alphabet[inside])
        known &= len(owners) == 1 and (inside == np.isin(alphabet, owners)).all()
        part[inside] = 1
    if not known:
        raise ValueError(
            'The characters of split="vinyals" cannot be told in these data, whose '
            'labels are not the numbers of the official release. Use split="lake" or '
            f'split="random", or the prepared file {next(iter(PREPARED))}. '
            f"Received: labels that begin with {(official[:5] - 1).tolist()}"
        )
    return part


def _read_tfds(directory, download):
    advice = (
        f"put {next(iter(PREPARED))} into a directory and name it by `data_dir` or by "
        f"the variable {ENVIRONMENT_VARIABLE}; or"
    )
    try:
        import tensorflow_datasets as tfds

        parts = tfds.as_numpy(
            tfds.load(
                "omniglot",
                split=["train", "test"],
                batch_size=_BATCH,
                download=download,
            )
        )
    except ImportError as error:
        raise ImportError(
            f"No file of Omniglot was found: {advice} have TensorFlow Datasets read "
            'it, `pip install "keras_mtl[datasets,tensorflow]"`. '
            f"Received: directory {directory}, and on importing {error}"
        ) from error
    except (AssertionError, OSError) as error:  # TFDS raises the former
        raise FileNotFoundError(
            "No file of Omniglot was found, and TensorFlow Datasets could not load it: "
            f"{advice} let TFDS fetch it by `download=True`. Received: directory "
            f"{directory}, download={download}, and from TFDS {error}"
        ) from error
    found = {"background": [], "alphabet": [], "alphabet_char_id": [], "label": []}
    images = []
    for is_background, part in zip((True, False), parts, strict=True):
        for batch in part:
            images.append(np.packbits(shrink(batch["image"]), axis=2))
            found["background"].append(np.full(len(batch["label"]), is_background))
            for name in ("alphabet", "alphabet_char_id", "label"):
                found[name].append(batch[name])
    return _arrange(
        np.concatenate(images), *(np.concatenate(rows) for rows in found.values())
    )


def _arrange(images, background, alphabet, number, label):
    """Sorts images by character, numbered as in the prepared file."""
    keys = np.stack([~background, alphabet, number]).astype("int64")
    order = np.lexsort(keys[::-1])
    _, alphabets = np.unique(keys[:2, order], axis=1, return_inverse=True)
    _, first, characters = np.unique(
        keys[:, order], axis=1, return_index=True, return_inverse=True
    )
    alphabets, characters = alphabets.ravel(), characters.ravel()
    label = label[order]
    _check_complete(characters, alphabets, "`omniglot` of TensorFlow Datasets")
    # Where the label is not that of the character, 0 is no number of any.
    same = np.logical_and.reduceat(label == label[first][characters], first)
    return {
        "images": images[order],
        "alphabet": alphabets.astype("uint8"),
        "character": characters.astype("uint16"),
        "char_official_id": np.where(same, label[first] + 1, 0).astype("uint16"),
    }


def _check_complete(characters, alphabets, source):
    counts = np.bincount(characters)
    background = characters < _BACKGROUND
    sizes = (
        len(counts),
        len(np.unique(alphabets)),
        len(np.unique(alphabets[background])),
        len(np.unique(alphabets[~background])),
    )
    if sizes != (_CHARACTERS, _ALPHABETS, 30, 20) or (counts != _DRAWERS).any():
        raise ValueError(
            f"Omniglot must have {_CHARACTERS} characters of 30 and 20 alphabets, with "
            f"{_DRAWERS} images each. Remove these data, or fetch them again. "
            f"Received: {source} with {len(counts)} characters, {sizes[1]} alphabets "
            f"and {len(characters)} images"
        )


def _keep(arrays, path):
    """Writes under another name first, so that no half of a file is ever read."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        part.replace(path)
    except OSError as error:  # a directory that can only be read, or is full
        warnings.warn(f"The images of TFDS could not be kept: {error}", stacklevel=3)
    finally:
        if part.exists():
            part.unlink()
