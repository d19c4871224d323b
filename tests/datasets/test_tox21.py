import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_mtl.datasets import load_tox21
from keras_mtl.datasets.tox21 import TASKS, scaffold_split

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data(prepared_directory):
    return load_tox21(prepared_directory)


def test_sizes_and_labels(data):
    assert sum(data.sizes.values()) == 8006
    assert data.task_names == list(TASKS)
    labels = np.stack([data.train.y[task] for task in TASKS])
    assert labels.dtype == np.int8 and set(np.unique(labels)) == {-1, 0, 1}
    assert data.meta["mask_value"] == -1
    everything = np.concatenate(
        [np.stack(list(getattr(data, name).y.values())) for name in SPLITS], axis=1
    )
    np.testing.assert_allclose((everything == -1).mean(), 0.17, atol=0.005)


def test_fingerprints_are_bits(data):
    assert data.train.x.shape == (data.sizes["train"], 1024)
    assert data.train.x.dtype == np.float32
    assert set(np.unique(data.test.x)) == {0.0, 1.0}


def test_no_scaffold_is_in_two_splits(data):
    groups = [set(data.meta["scaffold"][name].tolist()) for name in SPLITS]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]


def test_splits_have_about_the_sizes_asked_for(data):
    shares = np.array(list(data.sizes.values())) / 8006
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)


def test_every_task_can_be_scored(data):
    for name in SPLITS:
        for labels in getattr(data, name).y.values():
            assert {0, 1} <= set(labels.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_scaffold_split_of_random_groups(seed):
    rng = np.random.default_rng(seed)
    groups = rng.zipf(1.5, 500) % 97
    rows = scaffold_split(groups, 0.2, 0.2)
    together = np.concatenate(list(rows.values()))
    np.testing.assert_array_equal(np.sort(together), np.arange(500))
    owners = [set(groups[rows[name]]) for name in SPLITS]
    assert len(set.union(*owners)) == sum(map(len, owners))
    assert len(rows["train"]) <= 300 and len(rows["validation"]) <= 100


def test_largest_groups_are_trained_on():
    groups = np.array([0] * 5 + [1] * 3 + [2, 3])
    rows = scaffold_split(groups, 0.1, 0.1)
    assert [rows[name].tolist() for name in SPLITS] == [list(range(8)), [8], [9]]


def test_a_changed_file_is_refused(tmp_path):
    (tmp_path / "tox21_ecfp1024.npz").write_bytes(b"no data")
    with pytest.raises(ValueError, match=r"must have the sha256.*Received"):
        load_tox21(tmp_path)
    (tmp_path / "tox21_ecfp1024.npz").unlink()
    (tmp_path / "tox21.csv.gz").write_bytes(b"no data")
    with pytest.raises(ValueError, match=r"must have the md5.*Received"):
        load_tox21(tmp_path)


@pytest.fixture
def published(prepared_directory, tmp_path):
    """Some molecules of the prepared file in DeepChem's format."""
    with np.load(Path(prepared_directory) / "tox21_ecfp1024.npz") as prepared:
        smiles, labels = prepared["smiles"][:300], prepared["y"][:300]
    lines = [",".join([*TASKS, "mol_id", "smiles"])]
    for number, (text, row) in enumerate(zip(smiles, labels, strict=True)):
        values = ["" if label == -1 else f"{label}.0" for label in row]
        lines.append(",".join([*values, f"TOX{number}", str(text)]))
    path = tmp_path / "tox21.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return {
        "data_url": path.as_uri(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.mark.filterwarnings("ignore")
def test_the_public_file_gives_the_same_molecules(
    published, prepared_directory, tmp_path
):
    pytest.importorskip("rdkit")
    directory = tmp_path / "data"
    directory.mkdir()
    read = load_tox21(directory, **published)
    with np.load(Path(prepared_directory) / "tox21_ecfp1024.npz") as prepared:
        bits = np.unpackbits(prepared["fp"][:300], axis=1)
        labels, scaffold = prepared["y"][:300], prepared["scaffold"][:300]
    rows = scaffold_split(scaffold, 0.1, 0.1)
    for name in SPLITS:
        x, y = getattr(read, name)
        np.testing.assert_array_equal(x, bits[rows[name]])
        np.testing.assert_array_equal(
            np.stack(list(y.values()), axis=1), labels[rows[name]]
        )


def test_without_rdkit(published, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ImportError, match="pip install rdkit"):
        load_tox21(tmp_path, **published)


def test_without_a_file_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tox21\.csv\.gz.*data_dir"):
        load_tox21(tmp_path, download=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("NR",)}, "`tasks` must be.*Received"),
        ({"validation_fraction": 0.0}, "`validation_fraction`.*Received"),
        ({"data_url": "http://localhost:9/a"}, "needs the `sha256`.*Received"),
    ],
)
def test_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_tox21(tmp_path, **arguments)
