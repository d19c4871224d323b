import hashlib

import keras
import numpy as np
import pytest

from keras_mtl.datasets import data_directory
from keras_mtl.datasets.data_directory import (
    ENVIRONMENT_VARIABLE,
    PublicFile,
    check_content,
    content_checksum,
    find_file,
)

CONTENT = b"two tasks are better than one"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
NOWHERE = PublicFile("http://localhost:9/public.csv", SHA256)


@pytest.fixture
def published(tmp_path):
    """The URL of a file that somebody offers."""
    path = tmp_path / "publisher" / "public.csv"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path.as_uri()


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


class TestDirectory:
    def test_argument_comes_before_the_environment(self, tmp_path, monkeypatch):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "b"))
        assert data_directory() == tmp_path / "b"
        assert data_directory(str(tmp_path / "a")) == tmp_path / "a"

    def test_default_is_in_the_directory_of_keras(self, tmp_path, monkeypatch):
        monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        assert data_directory() == tmp_path / "datasets" / "keras_mtl"

    def test_default_is_where_keras_keeps_its_files(self, published, monkeypatch):
        monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
        monkeypatch.delenv("KERAS_HOME", raising=False)
        calls = {}
        monkeypatch.setattr(
            keras.utils, "get_file", lambda *a, **given: calls.update(given) or "path"
        )
        monkeypatch.setattr("pathlib.Path.mkdir", lambda *a, **b: None)
        find_file(data_directory(), {}, PublicFile(published))
        assert calls["cache_dir"].endswith(".keras/datasets/keras_mtl")

    @pytest.mark.parametrize("name", ["`data_dir`", ENVIRONMENT_VARIABLE])
    def test_a_directory_that_does_not_exist(self, name, tmp_path, monkeypatch):
        missing = tmp_path / "missing"
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(missing))
        asked_for = missing if name == "`data_dir`" else None
        with pytest.raises(FileNotFoundError, match=f"{name}.*Received: {missing}"):
            data_directory(asked_for)


class TestFindFile:
    def test_prepared_file_comes_first(self, directory):
        (directory / "prepared.npz").write_bytes(CONTENT)
        (directory / "public.csv").write_bytes(CONTENT)
        found = find_file(directory, {"prepared.npz": SHA256}, NOWHERE)
        assert found == directory / "prepared.npz"

    @pytest.mark.parametrize("name", ["public.csv", "public.zip"])
    def test_a_file_that_is_there_is_not_fetched(self, directory, name):
        (directory / name).write_bytes(CONTENT)
        public = PublicFile(NOWHERE.url, SHA256, other_names=("public.zip",))
        assert find_file(directory, {}, public) == directory / name

    @pytest.mark.parametrize("checksum", [SHA256, MD5, None])
    def test_fetches_and_keeps_the_public_file(self, directory, published, checksum):
        public = PublicFile(published, checksum)
        found = find_file(directory, {"prepared.npz": SHA256}, public)
        assert found == directory / "public.csv"
        assert found.read_bytes() == CONTENT

    def test_refuses_what_it_fetched_with_another_checksum(self, directory, published):
        with pytest.raises(ValueError, match="hash"):
            find_file(directory, {}, PublicFile(published, "0" * 64))

    @pytest.mark.parametrize("name", ["prepared.npz", "public.csv"])
    def test_refuses_files_of_another_checksum(self, directory, name):
        (directory / name).write_bytes(b"something else")
        with pytest.raises(ValueError, match=rf"sha256 {SHA256}.*Received: .*{name}"):
            find_file(directory, {"prepared.npz": SHA256}, NOWHERE)

    @pytest.mark.parametrize("download", [True, False])
    def test_says_what_to_do_where_there_is_none(self, directory, download):
        with pytest.raises(FileNotFoundError) as error:
            find_file(directory, {"prepared.npz": SHA256}, NOWHERE, download)
        message = str(error.value)
        for part in ("prepared.npz", "public.csv", NOWHERE.url, "data_dir"):
            assert part in message
        assert ENVIRONMENT_VARIABLE in message and str(directory) in message


class TestContent:
    def test_depends_on_values_shapes_and_types(self):
        base = np.arange(6)
        sums = [
            content_checksum([array])
            for array in (base, base + 1, base.reshape(2, 3), base.astype("float64"))
        ]
        assert len(set(sums)) == 4

    def test_does_not_depend_on_memory_layout(self):
        array = np.arange(6.0).reshape(2, 3)
        others = [np.asfortranarray(array), array.astype(">f8"), array[::1].copy()]
        for other in others:
            assert content_checksum([other]) == content_checksum([array])

    def test_all_nan_are_the_same(self):
        odd_nan = np.array([0x7FC00001], "uint32").view("float32")
        plain_nan = np.array([np.nan], "float32")
        assert content_checksum([odd_nan]) == content_checksum([plain_nan])

    def test_width_of_text_does_not_matter(self):
        assert content_checksum([np.array(["a"], "U5")]) == content_checksum(
            [np.array(["a"], "U9")]
        )

    def test_check(self, tmp_path):
        arrays = [np.arange(3)]
        check_content(tmp_path, arrays, content_checksum(arrays))
        with pytest.raises(ValueError, match=f"as published.*Received: {tmp_path}"):
            check_content(tmp_path, [np.arange(4)], content_checksum(arrays))
