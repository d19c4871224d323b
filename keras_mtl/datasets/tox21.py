"""Tox21: twelve toxicity tests of molecules, many of them not made."""

import csv
import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_mtl.datasets.data_directory import PublicFile, data_directory, find_file
from keras_mtl.datasets.loader_arguments import (
    check_fractions,
    check_tasks,
    public_file,
)
from keras_mtl.datasets.multi_task_data import MultiTaskData, Split

TASKS = (
    "NR-AR",
    "NR-AR-LBD",
    "NR-AhR",
    "NR-Aromatase",
    "NR-ER",
    "NR-ER-LBD",
    "NR-PPAR-gamma",
    "SR-ARE",
    "SR-ATAD5",
    "SR-HSE",
    "SR-MMP",
    "SR-p53",
)
MISSING = -1
PREPARED = {
    "tox21_ecfp1024.npz": (
        "0112ec54e84fbb03255d8904819e7fc3a3eebeba10b44a09b16a07859588a4aa"
    )
}
# The md5 that TorchDrug publishes for DeepChem's file.
PUBLIC = PublicFile(
    "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/tox21.csv.gz",
    checksum="2882d69e70bba0fec14995f26787cc25",
)
_BITS = 1024
_RADIUS = 2


def load_tox21(
    data_dir: str | os.PathLike | None = None,
    tasks: Sequence[str] = TASKS,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    download: bool = True,
    data_url: str | None = None,
    sha256: str | None = None,
) -> MultiTaskData:
    """Tox21: is a molecule active in twelve toxicity tests?

    Twelve tasks of two classes, from the molecule's fingerprint (ECFP4, 1024 bits).
    Of the labels 17 % are missing: -1, `meta["mask_value"]`. Between 3 % and 16 % of
    the others are 1.

    The split is by scaffold, as in MoleculeNet: molecules of one Bemis-Murcko
    scaffold are all in the same split, the largest groups in training, the rarest in
    the test. A test molecule thus looks like none that was trained on.

    A prepared file (`tox21_ecfp1024.npz`, 8006 molecules) is looked for in the data
    directory; else DeepChem's `tox21.csv.gz` (7831 molecules), which is fetched where
    it is not there. From the latter RDKit makes the fingerprints
    (`pip install rdkit`).

    Args:
        data_dir: Directory of the file. Defaults to that of
            `keras_mtl.datasets.data_directory`.
        tasks: Names of the tasks. Defaults to all twelve.
        validation_fraction: Defaults to `0.1`.
        test_fraction: Defaults to `0.1`.
        download: Whether to fetch a file that is not there. Defaults to `True`.
        data_url: Where to fetch it. Defaults to the publisher's site.
        sha256: Checksum of the file at `data_url`, which it needs.

    Returns:
        A `MultiTaskData`. `x` is float32 `(n, 1024)` of zeros and ones; labels are
        int8 `(n,)`, -1 where missing. `meta` has `"mask_value"` and for each split
        `"scaffold"`, the number of each molecule's group.

    Raises:
        FileNotFoundError: if there is no file and none could be fetched; the message
            says what to do.
        ValueError: for wrong arguments, or a file of another checksum.
        ImportError: if RDKit is needed and missing.

    Example:

    ```
    data = keras_mtl.datasets.load_tox21(data_dir="data")
    masks = {task: data.meta["mask_value"] for task in data.task_names}
    ```

    Reference:
        Wu et al., "MoleculeNet: a benchmark for molecular machine learning",
        Chemical Science 9, 2018, https://doi.org/10.1039/C7SC02664A
    """
    check_tasks(tasks, TASKS)
    check_fractions(validation_fraction, test_fraction)
    if data_url is not None and sha256 is None:
        raise ValueError(
            "`data_url` needs the `sha256` of the file there. "
            f"Received: data_url={data_url!r}, sha256=None"
        )
    public = public_file(PUBLIC, data_url, sha256)
    path = find_file(data_directory(data_dir), PREPARED, public, download)
    bits, labels, scaffold = _read(path)
    rows = scaffold_split(scaffold, validation_fraction, test_fraction)
    return MultiTaskData(
        "tox21",
        **{
            name: Split(
                bits[chosen].astype("float32"),
                {task: labels[chosen, TASKS.index(task)] for task in tasks},
            )
            for name, chosen in rows.items()
        },
        meta={
            "mask_value": MISSING,
            "scaffold": {name: scaffold[chosen] for name, chosen in rows.items()},
            "path": str(path),
        },
    )


def scaffold_split(
    groups: np.ndarray, validation_fraction: float, test_fraction: float
) -> dict[str, np.ndarray]:
    """Rows of training, validation and test, no group in two of them.

    Groups are taken from the largest to the smallest; each goes to training while it
    fits there, else to validation while it fits there, else to the test.

    Args:
        groups: Array `(n,)`, the group of each row.
        validation_fraction: Part of the rows for validation.
        test_fraction: Part of the rows for the test.

    Returns:
        Dict of the positions of each split, in order.
    """
    _, first, group, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    limits = {
        "train": (1 - validation_fraction - test_fraction) * len(groups),
        "validation": validation_fraction * len(groups),
        "test": np.inf,
    }
    taken = dict.fromkeys(limits, 0)
    split_of = np.empty(len(sizes), "U10")
    # Of groups of one size, the order is that of their first row.
    for number in np.lexsort((first, -sizes)):
        for name, limit in limits.items():
            if taken[name] + sizes[number] <= limit:
                taken[name] += sizes[number]
                split_of[number] = name
                break
    return {name: np.flatnonzero(split_of[group] == name) for name in limits}


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as prepared:
            bits = np.unpackbits(prepared["fp"], axis=1, count=_BITS)
            return bits, prepared["y"], prepared["scaffold"]
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    bits, scaffolds = _fingerprints([row["smiles"] for row in rows])
    labels = np.array(
        [
            [int(float(row[task])) if row[task] else MISSING for task in TASKS]
            for row in rows
        ],
        "int8",
    )
    _, scaffold = np.unique(scaffolds, return_inverse=True)
    return bits, labels, scaffold


def _fingerprints(smiles):
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdFingerprintGenerator
        from rdkit.Chem.Scaffolds import MurckoScaffold
    except ImportError as error:
        raise ImportError(
            "Fingerprints of DeepChem's tox21.csv.gz are made by RDKit: "
            "`pip install rdkit`."
        ) from error
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=_BITS)
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(text) for text in smiles]
        bits = np.stack([generator.GetFingerprintAsNumPy(mol) for mol in molecules])
        scaffolds = [
            MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False)
            for mol in molecules
        ]
    return bits, np.array(scaffolds)
