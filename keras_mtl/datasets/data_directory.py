"""Where the files of data sets are looked for, and how they are fetched."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import keras
import numpy as np

ENVIRONMENT_VARIABLE = "KERAS_MTL_DATA"


@dataclass(frozen=True)
class PublicFile:
    """A file that a data set's publisher offers.

    Args:
        url: Where it is.
        checksum: Sha256 or md5 of the file, `None` where only what is in it can be
            checked (see `check_content`).
        other_names: Names of other files with the same content.
    """

    url: str
    checksum: str | None = None
    other_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file in the data directory."""
        return unquote(self.url.rsplit("/", 1)[-1])


def data_directory(data_dir: str | os.PathLike | None = None) -> Path:
    """The directory in which the files of data sets are kept.

    Args:
        data_dir: Directory. Defaults to the environment variable
            `KERAS_MTL_DATA`, and where that is not set to `datasets/keras_mtl` in
            Keras's own directory (`$KERAS_HOME` or `~/.keras`), which is made when
            a file is fetched.

    Returns:
        A `pathlib.Path`.

    Raises:
        FileNotFoundError: if a directory that was asked for is none.

    Example:

    ```python
    print(keras_mtl.datasets.data_directory())
    ```
    """
    asked_for = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if asked_for is None:
        home = os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()
        return Path(home) / "datasets" / "keras_mtl"
    directory = Path(asked_for).expanduser()
    if not directory.is_dir():
        source = "`data_dir`" if data_dir else f"The variable {ENVIRONMENT_VARIABLE}"
        raise FileNotFoundError(
            f"{source} must name a directory that exists. Received: {asked_for}"
        )
    return directory


def find_file(
    directory: Path,
    prepared: dict[str, str],
    public: PublicFile,
    download: bool = True,
) -> Path:
    """Finds the file of a data set, or fetches it.

    A prepared file (its checksum is verified) comes before the publisher's, and a
    file that is there before one that has to be fetched.

    Args:
        directory: Directory to look in, and to fetch to.
        prepared: Name and sha256 of each prepared file.
        public: The publisher's file.
        download: Whether to fetch that where there is none.

    Returns:
        The path.

    Raises:
        ValueError: if a checksum does not match.
        FileNotFoundError: if there is no file and none could be fetched; the message
            says what to do.
    """
    for name, checksum in prepared.items():
        path = directory / name
        if path.is_file():
            _check_file(path, checksum)
            return path
    for name in (public.name, *public.other_names):
        path = directory / name
        if path.is_file():
            if public.checksum is not None and name == public.name:
                _check_file(path, public.checksum)
            return path
    advice = (
        f"put one of {[*prepared, public.name, *public.other_names]} into a directory "
        f"and name it by `data_dir` or by the variable {ENVIRONMENT_VARIABLE}. "
        f"The publisher's file is at {public.url}"
    )
    if not download:
        raise FileNotFoundError(
            f"No file of the data set was found, and `download` is off: {advice}. "
            f"Received: directory {directory}"
        )
    try:
        return _fetch(directory, public)
    except ValueError:  # a checksum that does not match
        raise
    except Exception as error:  # Keras raises no more special one without network
        raise FileNotFoundError(
            f"No file of the data set was found, and none could be fetched: {advice}. "
            f"Received: directory {directory}, and on fetching {error}"
        ) from error


def content_checksum(arrays: Iterable[np.ndarray]) -> str:
    """Sha256 of the values, shapes and dtypes of arrays, in order.

    It is the same for one content read from files of different formats. All NaN
    count as the same.
    """
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
        if array.dtype.kind == "U":
            values = "\n".join(array.ravel().tolist()).encode()
            kind = "text"
        else:
            little = array.dtype.newbyteorder("<")
            values = np.ascontiguousarray(array, little).tobytes()
            kind = little.str
        digest.update(f"{kind} {array.shape}\n".encode())
        digest.update(values)
    return digest.hexdigest()


def check_content(path: Path, arrays: Iterable[np.ndarray], expected: str) -> None:
    """Raises if what was read from a file is not the data set it should be."""
    found = content_checksum(arrays)
    if found != expected:
        raise ValueError(
            f"The content of the file must be the data set as published (checksum "
            f"{expected}). Remove the file, or fetch it again. "
            f"Received: {path} with checksum {found}"
        )


def _fetch(directory, public):
    directory.mkdir(parents=True, exist_ok=True)
    fetched = keras.utils.get_file(
        public.name,
        origin=public.url,
        file_hash=public.checksum,
        cache_dir=str(directory),
        cache_subdir="",
    )
    return Path(fetched)


def _check_file(path, checksum):
    algorithm = "md5" if len(checksum) == 32 else "sha256"
    found = hashlib.new(algorithm, path.read_bytes()).hexdigest()
    if found != checksum:
        raise ValueError(
            f"The file must have the {algorithm} {checksum}. Remove it, or fetch it "
            f"again. Received: {path} with {algorithm} {found}"
        )
