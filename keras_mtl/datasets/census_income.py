"""UCI Census-Income (KDD): income and marital status of one person."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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
from keras_mtl.datasets.table_columns import one_hot, standardised

TASKS = ("income_over_50k", "never_married", "marital_stat")
PREPARED = {
    "census_income_kdd_testpart.npz": (
        "a5836b86b87821ae750662564194e07cedc1902c3ff882f5afe4c6965b8f4c82"
    )
}
PUBLIC = PublicFile(
    "https://archive.ics.uci.edu/static/public/117/census+income+kdd.zip",
    other_names=("census.tar.gz", "census-income.test.gz", "census-income.test"),
)
# Of the arrays read, whichever file they were read from.
CONTENT = "a6a4ddfd52d82accc85eafc9122d37bfbdf71a40f0a0c2c41e89a7a84353232f"

_MEMBER = "census-income.test"
_NEVER_MARRIED = "Never married"
# Columns of the official file, in order.
_COLUMNS = (
    "age class_worker det_ind_code det_occ_code education wage_per_hour hs_college "
    "marital_stat major_ind_code major_occ_code race hisp_origin sex union_member "
    "unemp_reason full_or_part_emp capital_gains capital_losses stock_dividends "
    "tax_filer_stat region_prev_res state_prev_res det_hh_fam_stat det_hh_summ "
    "instance_weight mig_chg_msa mig_chg_reg mig_move_reg mig_same "
    "mig_prev_sunbelt num_emp fam_under_18 country_father country_mother "
    "country_self citizenship own_or_self vet_question vet_benefits weeks_worked "
    "year income_50k"
).split()
_NUMERIC = (
    "age wage_per_hour capital_gains capital_losses stock_dividends num_emp "
    "weeks_worked"
).split()
_NO_FEATURES = ("instance_weight", "marital_stat", "income_50k")
_CATEGORICAL = [
    name for name in _COLUMNS if name not in _NUMERIC and name not in _NO_FEATURES
]


def load_census_income(
    data_dir: str | os.PathLike | None = None,
    tasks: Sequence[str] = ("income_over_50k", "never_married"),
    encode: str = "one_hot",
    exclude: Iterable[str] = (),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    download: bool = True,
    data_url: str | None = None,
    sha256: str | None = None,
) -> MultiTaskData:
    """UCI Census-Income (KDD), the official test part of 99762 persons.

    Tasks, classified from 32 categorical and 7 numeric features of a person:

    - `"income_over_50k"`: 0 or 1 (6.2 % are 1).
    - `"never_married"`: 0 or 1 (43.2 % are 1).
    - `"marital_stat"`: 0 to 6, of which `"never_married"` is one.

    The marital status is never a feature, whichever tasks are chosen, so that the
    baseline of a single task has the same inputs as the model of several. The
    weight of a person in the survey (`instance_weight`) is no feature either.
    Three features of the household (`"det_hh_fam_stat"`, `"det_hh_summ"` and
    `"tax_filer_stat"`) say of many persons that they are or were never married;
    the literature keeps them, hence AUCs of 0.99 for that task. `exclude` leaves
    them out. A quarter of the rows share their features with another row, most of
    them children, so that splits overlap in those, as the official ones do.

    A prepared file (`census_income_kdd_testpart.npz`) or the publisher's
    (`census+income+kdd.zip`, or `census-income.test.gz` from it) is looked for in
    the data directory, else the publisher's is fetched; what was read must have a
    known checksum.

    Args:
        data_dir: Directory of the file. Defaults to that of
            `keras_mtl.datasets.data_directory`.
        tasks: Names of the tasks. Defaults to the first two.
        encode: `"one_hot"` for `x` as one float32 array `(n, columns)`; `"codes"`
            for a dict of `"categorical"`, int32 `(n, 32)`, and `"numeric"`, float32
            `(n, 7)`, as embeddings take them. Numeric features have zero mean and
            unit deviation over the training rows. Defaults to `"one_hot"`.
        exclude: Names of features to leave out. Defaults to none.
        validation_fraction: Defaults to `0.1`.
        test_fraction: Defaults to `0.2`.
        seed: Non-negative integer of the random split. Defaults to `0`.
        download: Whether to fetch a file that is not there. Defaults to `True`.
        data_url: Where to fetch it. Defaults to the publisher's site.
        sha256: Checksum of the file at `data_url`. Defaults to `None`, only what is
            in the file is checked.

    Returns:
        A `MultiTaskData`. Labels are int32 `(n,)`. `meta` has `"categorical_names"`,
        `"numeric_names"`, `"categories"` (number for each categorical feature),
        `"levels"` (their names), `"marital_levels"`, and for each split `"rows"` and
        `"instance_weight"`.

    Raises:
        FileNotFoundError: if there is no file and none could be fetched; the message
            says what to do.
        ValueError: for wrong arguments, or a file of other content.

    Example:

    ```
    data = keras_mtl.datasets.load_census_income(data_dir="data")
    model.fit(*data.train, validation_data=data.validation)
    ```

    Reference:
        Census-Income (KDD), UCI Machine Learning Repository, 2000,
        https://doi.org/10.24432/C5N30T (CC BY 4.0). As a multi-task problem: Ma et
        al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
        Mixture-of-Experts", KDD 2018, https://doi.org/10.1145/3219819.3220007
    """
    exclude = tuple(exclude)
    check_tasks(tasks, TASKS)
    check_fractions(validation_fraction, test_fraction)
    _check_features(encode, exclude)
    public = public_file(PUBLIC, data_url, sha256)
    path = find_file(data_directory(data_dir), PREPARED, public, download)
    table = _read(path)

    order = np.random.default_rng(seed).permutation(len(table["income_over_50k"]))
    test_size = round(test_fraction * len(order))
    validation_size = round(validation_fraction * len(order))
    test, validation, train = np.split(order, [test_size, test_size + validation_size])
    rows = {"train": train, "validation": validation, "test": test}

    categorical = [name for name in _CATEGORICAL if name not in exclude]
    numeric = [name for name in _NUMERIC if name not in exclude]
    codes = table["X_cat"][:, [_CATEGORICAL.index(name) for name in categorical]]
    numbers = standardised(
        table["X_num"][:, [_NUMERIC.index(name) for name in numeric]], train
    )
    categories = [len(table["levels"][name]) for name in categorical]
    labels = {
        "income_over_50k": table["income_over_50k"].astype("int32"),
        "marital_stat": table["marital_stat"].astype("int32"),
    }
    never = table["marital_levels"].tolist().index(_NEVER_MARRIED)
    labels["never_married"] = (labels["marital_stat"] == never).astype("int32")

    def split(chosen):
        if encode == "codes":
            x = {
                "categorical": codes[chosen].astype("int32"),
                "numeric": numbers[chosen],
            }
        else:
            encoded = one_hot(codes[chosen].astype("int64"), categories)
            x = np.concatenate([encoded, numbers[chosen]], axis=1)
        return Split(x, {task: labels[task][chosen] for task in tasks})

    meta: dict[str, Any] = {
        "categorical_names": categorical,
        "numeric_names": numeric,
        "categories": categories,
        "levels": {name: table["levels"][name].tolist() for name in categorical},
        "marital_levels": table["marital_levels"].tolist(),
        "rows": rows,
        "instance_weight": {
            name: table["instance_weight"][chosen] for name, chosen in rows.items()
        },
        "path": str(path),
    }
    return MultiTaskData(
        "census_income",
        **{name: split(chosen) for name, chosen in rows.items()},
        meta=meta,
    )


def _check_features(encode, exclude):
    if encode not in ("one_hot", "codes"):
        raise ValueError(
            f'`encode` must be "one_hot" or "codes". Received: encode={encode!r}'
        )
    unknown = [name for name in exclude if name not in _CATEGORICAL + _NUMERIC]
    if unknown:
        raise ValueError(
            f"`exclude` must name features, of {_CATEGORICAL + _NUMERIC}. "
            f"Received: {unknown}"
        )


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as prepared:
            table = {
                name: prepared[name]
                for name in (
                    "X_cat",
                    "X_num",
                    "instance_weight",
                    "income_over_50k",
                    "marital_stat",
                )
            }
            table["levels"] = {
                name: prepared[f"levels_{name}"] for name in _CATEGORICAL
            }
            table["marital_levels"] = prepared["levels_marital_stat"]
    else:
        table = _parse(_official_text(path))
    check_content(path, _contents(table), CONTENT)
    return table


def _contents(table):
    yield from (table[name] for name in ("X_cat", "X_num", "instance_weight"))
    yield from (table[name] for name in ("income_over_50k", "marital_stat"))
    yield from (table["levels"][name] for name in _CATEGORICAL)
    yield table["marital_levels"]


def _official_text(path):
    """The lines of the official test part, out of whichever file it is in."""
    content = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = _member(path, archive.namelist(), archive.read)
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if tarfile.is_tarfile(io.BytesIO(content)):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            content = _member(
                path,
                archive.getnames(),
                lambda name: archive.extractfile(name).read(),
            )
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return content.decode("latin-1")


def _member(path, names, read):
    for wanted in (_MEMBER, f"{_MEMBER}.gz", "census.tar.gz"):
        for name in names:
            if name.rsplit("/", 1)[-1] == wanted:
                return read(name)
    raise ValueError(
        f"The archive must hold {_MEMBER}, or census.tar.gz with it. "
        f"Received: {path} with {list(names)}"
    )


def _parse(text):
    rows = [
        [value.strip() for value in line.split(",")]
        for line in text.splitlines()
        if line.strip()
    ]
    if any(len(row) != len(_COLUMNS) for row in rows) or not rows:
        raise ValueError(
            f"The official file must have {len(_COLUMNS)} columns in every row. "
            f"Received: {sorted({len(row) for row in rows})} columns"
        )
    columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    coded = {name: _coded(columns[name]) for name in [*_CATEGORICAL, "marital_stat"]}
    return {
        "X_cat": np.stack([coded[name][1] for name in _CATEGORICAL], axis=1),
        "X_num": np.stack(
            [np.array(columns[name], "int32") for name in _NUMERIC], axis=1
        ),
        "instance_weight": np.array(columns["instance_weight"], "float32"),
        "income_over_50k": np.array(
            [value.startswith("50000+") for value in columns["income_50k"]], "uint8"
        ),
        "marital_stat": coded["marital_stat"][1],
        "levels": {name: coded[name][0] for name in _CATEGORICAL},
        "marital_levels": coded["marital_stat"][0],
    }


def _coded(values):
    names = sorted(set(values))
    if all(name.isdigit() for name in names):
        names.sort(key=int)
    codes = {name: code for code, name in enumerate(names)}
    return np.array(names), np.array([codes[value] for value in values], "uint8")
