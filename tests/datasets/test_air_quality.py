import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_mtl.datasets import air_quality, load_air_quality

# Header and first row of the official file, and how it ends.
HEADER = (
    "Date;Time;CO(GT);PT08.S1(CO);NMHC(GT);C6H6(GT);PT08.S2(NMHC);NOx(GT);"
    "PT08.S3(NOx);NO2(GT);PT08.S4(NO2);PT08.S5(O3);T;RH;AH;;"
)
FIRST_ROW = (
    "10/03/2004;18.00.00;2,6;1360;150;11,9;1046;166;1056;113;1692;1268;13,6;48,9;"
    "0,7578;;"
)
LAST_LINE = ";;;;;;;;;;;;;;;;"


@pytest.fixture(scope="module")
def data(prepared_directory):
    return load_air_quality(prepared_directory)


@pytest.fixture(scope="module")
def official_text(prepared_directory):
    """The official file, written anew from the prepared one."""
    with np.load(Path(prepared_directory) / "air_quality.npz") as prepared:
        values = np.concatenate([prepared["X"], prepared["Y"]], axis=1)
    values = np.where(np.isnan(values), np.float32(-200), values)
    here = [*air_quality._INPUTS.values(), *air_quality._LABELS.values()]
    order = [here.index(name) for name in HEADER.split(";")[2:15]]
    lines = [
        "01/01/2004;00.00.00;" + ";".join(str(row[i]) for i in order).replace(".", ",")
        for row in values
    ]
    return "\n".join([HEADER, *(f"{line};;" for line in lines), LAST_LINE, LAST_LINE])


def test_sizes_and_missing_labels(data):
    assert sum(data.sizes.values()) == 8991
    assert data.task_names == ["CO", "NMHC", "C6H6", "NOx", "NO2"]
    missing = {
        task: np.isnan(
            np.concatenate([split.y[task] for split in (data.train, data.test)])
        ).mean()
        for task in data.task_names
    }
    assert missing["C6H6"] == 0.0 and missing["NMHC"] > 0.85
    assert 0.05 < missing["CO"] < 0.3
    assert not np.isnan(data.train.y["NMHC"]).all()
    assert np.isnan(data.validation.y["NMHC"]).all()


def test_inputs_are_complete_and_standardised(data):
    for split in (data.train, data.validation, data.test):
        assert split.x.shape[1] == 8 and split.x.dtype == np.float32
        assert np.all(np.isfinite(split.x))
    np.testing.assert_allclose(data.train.x.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(data.train.x.std(axis=0), 1, atol=1e-4)


def test_the_split_is_in_time(data):
    hours = [data.meta["hours"][name] for name in ("train", "validation", "test")]
    for part in hours:
        assert np.all(np.diff(part) > 0)
    assert hours[0][-1] < hours[1][0] and hours[1][-1] < hours[2][0]


def test_labels_are_in_their_units(data):
    assert 0.1 <= np.nanmin(data.train.y["CO"]) < np.nanmax(data.train.y["CO"]) < 12
    assert np.nanmax(data.test.y["NOx"]) > 1000


def test_chosen_tasks(prepared_directory, data):
    chosen = load_air_quality(prepared_directory, tasks=("NO2", "CO"))
    assert chosen.task_names == ["NO2", "CO"]
    np.testing.assert_array_equal(chosen.test.y["CO"], data.test.y["CO"])


def test_first_row_of_the_official_file():
    text = "\n".join([HEADER, FIRST_ROW, LAST_LINE])
    inputs, labels = air_quality._parse(text)
    expected = np.float32([[1360, 1046, 1056, 1692, 1268, 13.6, 48.9, 0.7578]])
    np.testing.assert_array_equal(inputs, expected)
    np.testing.assert_array_equal(labels, np.float32([[2.6, 150, 11.9, 166, 113]]))


@pytest.mark.parametrize("name", ["AirQualityUCI.csv", "air+quality.zip"])
def test_the_official_file_gives_what_the_prepared_gives(
    name, official_text, data, tmp_path
):
    publisher = tmp_path / "publisher"
    publisher.mkdir()
    if name.endswith(".zip"):
        with zipfile.ZipFile(publisher / name, "w") as archive:
            archive.writestr("AirQualityUCI.xlsx", "")
            archive.writestr("AirQualityUCI.csv", official_text)
    else:
        (publisher / name).write_text(official_text)
    directory = tmp_path / "data"
    directory.mkdir()
    read = load_air_quality(directory, data_url=(publisher / name).as_uri())
    assert read.meta["path"] == str(directory / name)
    np.testing.assert_array_equal(read.test.x, data.test.x)
    for task in data.task_names:
        np.testing.assert_array_equal(read.train.y[task], data.train.y[task])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "AirQualityUCI.csv"
    path.write_text("\n".join([HEADER, FIRST_ROW]))
    with pytest.raises(ValueError, match="must be the data set as published"):
        load_air_quality(tmp_path)
    path.write_text("Date;Time;T\n")
    with pytest.raises(ValueError, match=r"must have the columns.*without.*CO\(GT\)"):
        load_air_quality(tmp_path)
    path.unlink()
    with zipfile.ZipFile(tmp_path / "air+quality.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ValueError, match=r"must hold AirQualityUCI.*readme\.txt"):
        load_air_quality(tmp_path)


def test_without_a_file_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"air\+quality\.zip.*data_dir"):
        load_air_quality(tmp_path, download=False)


@pytest.mark.parametrize(
    "arguments", [{"tasks": ("CO2",)}, {"test_fraction": 0.0}], ids=str
)
def test_errors(arguments, tmp_path):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=f"`{name}` must be.*Received"):
        load_air_quality(tmp_path, **arguments)
