import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_mtl.datasets import census_income, load_census_income
from keras_mtl.datasets.census_income import PREPARED

NAME = next(iter(PREPARED))
# The first row of the official test part, as the publisher writes it.
FIRST_ROW = (
    "38, Private, 6, 36, 1st 2nd 3rd or 4th grade, 0, Not in universe, "
    "Married-civilian spouse present, Manufacturing-durable goods, Machine operators "
    "assmblrs & inspctrs, White, Mexican (Mexicano), Female, Not in universe, Not in "
    "universe, Full-time schedules, 0, 0, 0, Joint one under 65 & one 65+, Not in "
    "universe, Not in universe, Spouse of householder, Spouse of householder, "
    "1032.38, ?, ?, ?, Not in universe under 1 year old, ?, 4, Not in universe, "
    "Mexico, Mexico, Mexico, Foreign born- Not a citizen of U S , 0, Not in universe, "
    "2, 12, 95, - 50000."
)


@pytest.fixture(scope="module")
def data(prepared_directory):
    return load_census_income(prepared_directory, encode="codes")


@pytest.fixture(scope="module")
def official_text(prepared_directory):
    """The official file, written anew from the prepared one."""
    with np.load(Path(prepared_directory) / NAME) as prepared:
        columns = {
            name: prepared[f"levels_{name}"][codes]
            for name, codes in zip(
                prepared["cat_names"], prepared["X_cat"].T, strict=True
            )
        }
        columns["marital_stat"] = prepared["levels_marital_stat"][
            prepared["marital_stat"]
        ]
        columns |= dict(zip(prepared["num_names"], prepared["X_num"].T, strict=True))
        columns["instance_weight"] = prepared["instance_weight"]
        columns["income_50k"] = np.where(
            prepared["income_over_50k"], "50000+.", "- 50000."
        )
        lists = [columns[name].tolist() for name in census_income._COLUMNS]
    weight = census_income._COLUMNS.index("instance_weight")
    lists[weight] = [f"{value:.2f}" for value in lists[weight]]
    return "\n".join(", ".join(map(str, row)) for row in zip(*lists, strict=True))


class TestPrepared:
    def test_sizes_and_labels(self, data):
        assert data.sizes == {"train": 69834, "validation": 9976, "test": 19952}
        labels = np.concatenate(
            [split.y["never_married"] for split in (data.train, data.test)]
        )
        np.testing.assert_allclose(labels.mean(), 0.432, atol=0.003)
        np.testing.assert_allclose(
            data.train.y["income_over_50k"].mean(), 0.062, atol=0.003
        )

    def test_every_row_is_in_one_split(self, data):
        rows = np.concatenate(list(data.meta["rows"].values()))
        np.testing.assert_array_equal(np.sort(rows), np.arange(99762))

    def test_marital_status_and_survey_weight_are_no_features(self, data):
        names = data.meta["categorical_names"] + data.meta["numeric_names"]
        assert len(names) == 39
        assert not {"marital_stat", "never_married", "instance_weight"} & set(names)
        # No feature by itself settles who was never married.
        married = data.train.y["never_married"]
        for codes in data.train.x["categorical"].T:
            shares = np.bincount(codes, married) / np.maximum(np.bincount(codes), 1)
            assert np.any((shares > 0.01) & (shares < 0.99))

    def test_features_do_not_depend_on_the_tasks(self, prepared_directory, data):
        other = load_census_income(
            prepared_directory, tasks=("marital_stat",), encode="codes"
        )
        assert other.meta["categorical_names"] == data.meta["categorical_names"]
        np.testing.assert_array_equal(
            other.test.x["categorical"], data.test.x["categorical"]
        )
        level = other.meta["marital_levels"].index("Never married")
        np.testing.assert_array_equal(
            other.test.y["marital_stat"] == level, data.test.y["never_married"]
        )

    def test_codes_fit_their_categories(self, data):
        codes = data.train.x["categorical"]
        assert codes.dtype == np.int32
        assert np.all(codes.max(axis=0) < data.meta["categories"])
        assert [len(levels) for levels in data.meta["levels"].values()] == data.meta[
            "categories"
        ]

    def test_numbers_are_standardised_over_the_training_rows(self, data):
        numbers = data.train.x["numeric"].astype("float64")
        np.testing.assert_allclose(numbers.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(numbers.std(axis=0), 1, atol=1e-4)
        assert np.abs(data.test.x["numeric"].mean(axis=0)).max() > 1e-4

    def test_one_hot_says_the_same(self, prepared_directory, data):
        encoded = load_census_income(prepared_directory).test.x
        categories = data.meta["categories"]
        assert encoded.shape == (19952, sum(categories) + 7)
        assert encoded.dtype == np.float32
        groups = np.split(encoded, np.cumsum(categories), axis=1)
        for group, codes in zip(groups, data.test.x["categorical"].T, strict=False):
            np.testing.assert_array_equal(group.argmax(axis=1), codes)
            np.testing.assert_array_equal(group.sum(axis=1), 1)
        np.testing.assert_array_equal(groups[-1], data.test.x["numeric"])

    def test_features_can_be_left_out(self, prepared_directory):
        household = ("det_hh_fam_stat", "det_hh_summ", "tax_filer_stat", "age")
        data = load_census_income(prepared_directory, exclude=household)
        assert data.meta["numeric_names"][0] == "wage_per_hour"
        assert len(data.meta["categories"]) == 29
        assert data.train.x.shape[1] == sum(data.meta["categories"]) + 6

    def test_seed(self, prepared_directory, data):
        other = load_census_income(prepared_directory, encode="codes", seed=1)
        assert not np.array_equal(other.meta["rows"]["test"], data.meta["rows"]["test"])

    def test_a_changed_file_is_refused(self, prepared_directory, tmp_path):
        copy = tmp_path / NAME
        shutil.copy(Path(prepared_directory) / NAME, copy)
        with copy.open("ab") as file:
            file.write(b"0")
        with pytest.raises(ValueError, match=f"must have the sha256.*Received.*{NAME}"):
            load_census_income(tmp_path)


class TestOfficialFile:
    def test_first_row_is_read_as_in_the_prepared_file(self, data):
        table = census_income._parse(FIRST_ROW)
        split, row = next(
            (getattr(data, name), np.flatnonzero(rows == 0)[0])
            for name, rows in data.meta["rows"].items()
            if 0 in rows
        )
        levels = list(data.meta["levels"].values())
        codes = split.x["categorical"][row]
        found = [str(level[0]) for level in table["levels"].values()]
        assert found == [names[code] for names, code in zip(levels, codes, strict=True)]
        assert table["X_num"].tolist() == [[38, 0, 0, 0, 0, 4, 12]]
        assert table["instance_weight"] == np.float32(1032.38)
        assert table["income_over_50k"] == split.y["income_over_50k"][row] == 0
        assert table["marital_levels"] == ["Married-civilian spouse present"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "name", ["census-income.test", "census-income.test.gz", "census+income+kdd.zip"]
    )
    def test_gives_what_the_prepared_file_gives(
        self, name, official_text, data, tmp_path
    ):
        content = official_text.encode()
        if name.endswith(".gz"):
            content = gzip.compress(content, 1)
        elif name.endswith(".zip"):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
                member = tarfile.TarInfo("census-income.test")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            zipped = io.BytesIO()
            with zipfile.ZipFile(zipped, "w") as archive:
                archive.writestr("census.tar.gz", packed.getvalue())
            content = zipped.getvalue()
        publisher = tmp_path / "publisher"
        publisher.mkdir()
        (publisher / name).write_bytes(content)
        directory = tmp_path / "data"
        directory.mkdir()
        # Fetched first, and read from the directory after that.
        for url in ((publisher / name).as_uri(), "http://localhost:9/" + name):
            read = load_census_income(directory, encode="codes", data_url=url)
            assert read.meta["path"] == str(directory / name)
            np.testing.assert_array_equal(
                read.test.x["categorical"], data.test.x["categorical"]
            )
            np.testing.assert_array_equal(
                read.test.x["numeric"], data.test.x["numeric"]
            )
            np.testing.assert_array_equal(
                read.meta["instance_weight"]["test"],
                data.meta["instance_weight"]["test"],
            )
            for task in data.task_names:
                np.testing.assert_array_equal(read.test.y[task], data.test.y[task])

    def test_other_content_is_refused(self, tmp_path):
        (tmp_path / "census-income.test").write_text(FIRST_ROW + "\n\n")
        with pytest.raises(ValueError, match="must be the data set as published"):
            load_census_income(tmp_path)

    def test_other_columns_are_refused(self, tmp_path):
        (tmp_path / "census-income.test").write_text("38, Private\n")
        with pytest.raises(ValueError, match=r"42 columns in every row.*\[2\]"):
            load_census_income(tmp_path)

    def test_an_archive_of_something_else_is_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "census+income+kdd.zip", "w") as archive:
            archive.writestr("readme.txt", "nothing here")
        with pytest.raises(ValueError, match=r"must hold.*Received.*readme\.txt"):
            load_census_income(tmp_path)


def test_without_a_file_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"census\+income\+kdd\.zip.*data_dir"):
        load_census_income(tmp_path, download=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("income",)}, "`tasks` must be.*Received"),
        ({"encode": "hot"}, "`encode` must be.*Received: encode='hot'"),
        ({"exclude": ("income",)}, r"`exclude` must name.*Received: \['income'\]"),
        ({"test_fraction": 1.0}, "`test_fraction` must be.*Received"),
    ],
)
def test_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_census_income(tmp_path, **arguments)
