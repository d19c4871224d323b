"""UCI Air Quality: five gases from cheap sensors, with labels that are missing."""

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_mtl.datasets.data_directory import (
    PublicFile,
    check_content,
    data_directory,
    find_file,
)
from keras_mtl.datasets.loader_arguments import (
    check_fractions,
    check_tasks,
    public_file,
)
from keras_mtl.datasets.multi_task_data import MultiTaskData, Split
from keras_mtl.datasets.table_columns import standardised

PREPARED = {
    "air_quality.npz": (
        "8b1ebebd822a8d049e02b57e3e478178b704517faac95b1a65835e73be2230dd"
    )
}
PUBLIC = PublicFile(
    "https://archive.ics.uci.edu/static/public/360/air+quality.zip",
    other_names=("AirQualityUCI.zip", "AirQualityUCI.csv"),
)
# Of the arrays read, whichever file they were read from.
CONTENT = "4f670fc48bbdec9fc8abea84721b97a33204b858b95e4c5768b2122024bd23aa"

# Name of each column here, and in the header of the official file.
_INPUTS = {
    "PT08_S1_CO": "PT08.S1(CO)",
    "PT08_S2_NMHC": "PT08.S2(NMHC)",
    "PT08_S3_NOx": "PT08.S3(NOx)",
    "PT08_S4_NO2": "PT08.S4(NO2)",
    "PT08_S5_O3": "PT08.S5(O3)",
    "T": "T",
    "RH": "RH",
    "AH": "AH",
}
_LABELS = {
    "CO": "CO(GT)",
    "NMHC": "NMHC(GT)",
    "C6H6": "C6H6(GT)",
    "NOx": "NOx(GT)",
    "NO2": "NO2(GT)",
}
_UNITS = {
    "CO": "mg/m^3",
    "NMHC": "ug/m^3",
    "C6H6": "ug/m^3",
    "NOx": "ppb",
    "NO2": "ug/m^3",
}
TASKS = tuple(_LABELS)
_MISSING = -200.0


def load_air_quality(
    data_dir: str | os.PathLike | None = None,
    tasks: Sequence[str] = TASKS,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    download: bool = True,
    data_url: str | None = None,
    sha256: str | None = None,
) -> MultiTaskData:
    """UCI Air Quality: 9357 hours of five gas concentrations in an Italian city.

    Tasks (regression): `"CO"` (mg/m^3), `"NMHC"`, `"C6H6"`, `"NO2"` (ug/m^3) and
    `"NOx"` (ppb), measured by a certified analyser, from the readings of five cheap
    sensors and the weather. Their units differ by a factor of a hundred (see
    `keras_mtl.data.LabelScaler`), and 4 % to 90 % of the labels are missing: NaN.

    The split is in time: training first, then validation, then test. The analyser
    of `"NMHC"` stopped after six weeks, so that this task has labels in training
    only. The 366 hours at which the sensors themselves failed are left out.

    A prepared file (`air_quality.npz`) or the publisher's (`air+quality.zip`, or
    `AirQualityUCI.csv` from it) is looked for in the data directory, else the
    publisher's is fetched; what was read must have a known checksum.

    Args:
        data_dir: Directory of the file. Defaults to that of
            `keras_mtl.datasets.data_directory`.
        tasks: Names of the tasks. Defaults to all five.
        validation_fraction: Defaults to `0.2`.
        test_fraction: Defaults to `0.2`.
        download: Whether to fetch a file that is not there. Defaults to `True`.
        data_url: Where to fetch it. Defaults to the publisher's site.
        sha256: Checksum of the file at `data_url`. Defaults to `None`, only what is
            in the file is checked.

    Returns:
        A `MultiTaskData`. `x` is float32 `(n, 8)`, of zero mean and unit deviation
        over the training rows; labels are float32 `(n,)` with NaN, in their units.
        `meta` has `"feature_names"`, `"units"`, and for each split `"hours"` since
        the first measurement, `"start"`.

    Raises:
        FileNotFoundError: if there is no file and none could be fetched; the message
            says what to do.
        ValueError: for wrong arguments, or a file of other content.

    Example:

    ```
    data = keras_mtl.datasets.load_air_quality(data_dir="data")
    model.fit(*data.train, validation_data=data.validation)
    ```

    Reference:
        S. De Vito et al., "On field calibration of an electronic nose for benzene
        estimation in an urban pollution monitoring scenario", Sensors and Actuators
        B 129, 2008, https://doi.org/10.1016/j.snb.2007.09.060; the data:
        https://doi.org/10.24432/C59K5F (CC BY 4.0)
    """
    check_tasks(tasks, TASKS)
    check_fractions(validation_fraction, test_fraction)
    public = public_file(PUBLIC, data_url, sha256)
    path = find_file(data_directory(data_dir), PREPARED, public, download)
    inputs, labels = _read(path)

    hours = np.flatnonzero(~np.isnan(inputs).any(axis=1))
    inputs, labels = inputs[hours], labels[hours]
    validation_begin = round((1 - validation_fraction - test_fraction) * len(hours))
    test_begin = round((1 - test_fraction) * len(hours))
    rows = {
        "train": slice(0, validation_begin),
        "validation": slice(validation_begin, test_begin),
        "test": slice(test_begin, None),
    }
    x = standardised(inputs, np.arange(validation_begin))
    return MultiTaskData(
        "air_quality",
        **{
            name: Split(
                x[chosen],
                {task: labels[chosen, TASKS.index(task)] for task in tasks},
            )
            for name, chosen in rows.items()
        },
        meta={
            "feature_names": list(_INPUTS),
            "units": {task: _UNITS[task] for task in tasks},
            "start": "2004-03-10 18:00:00",
            "hours": {name: hours[chosen] for name, chosen in rows.items()},
            "path": str(path),
        },
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as prepared:
            inputs, labels = prepared["X"], prepared["Y"]
    else:
        inputs, labels = _parse(_official_text(path))
    check_content(path, [inputs, labels], CONTENT)
    return inputs, labels


def _official_text(path):
    content = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                if name.rsplit("/", 1)[-1] == "AirQualityUCI.csv":
                    content = archive.read(name)
                    break
            else:
                raise ValueError(
                    "The archive must hold AirQualityUCI.csv. "
                    f"Received: {path} with {archive.namelist()}"
                )
    return content.decode("utf-8-sig")


def _parse(text):
    header, *lines = text.splitlines()
    names = header.split(";")
    wanted = [*_INPUTS.values(), *_LABELS.values()]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise ValueError(
            f"The official file must have the columns {wanted}. "
            f"Received: a file without {absent}"
        )
    positions = [names.index(name) for name in wanted]
    # The file ends with lines of separators only, and writes decimal commas.
    rows = [line.split(";") for line in lines if line.strip("; ")]
    values = np.array(
        [[float(row[i].replace(",", ".")) for i in positions] for row in rows],
        "float32",
    )
    values[values == _MISSING] = np.nan
    return values[:, : len(_INPUTS)], values[:, len(_INPUTS) :]
