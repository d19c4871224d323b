import math
import sys

import pytest

from keras_mtl.metrics import ResultsTable


def filled(**arguments):
    table = ResultsTable(
        **{"higher_is_better": {"auc": True, "mae": False}, "digits": 2, **arguments}
    )
    table.add("single", {"auc": 0.80, "mae": 3.0, "note": 1.0})
    for auc, mae in ((0.80, 4.0), (0.90, 5.0)):
        table.add("multi", {"auc": auc, "mae": mae, "seconds": 7.0})
    return table


def test_rows_and_columns_come_in_order():
    table = filled()
    assert table.methods == ["single", "multi"]
    assert table.columns == ["auc", "mae", "note", "seconds"]
    assert table.values("multi", "mae") == [4.0, 5.0]
    assert table.values("multi", "note") == []


def test_the_best_mean_of_each_column():
    table = filled()
    assert table.best("auc") == ["multi"]
    assert table.best("mae") == ["single"]
    assert table.best("seconds") == []
    table.add("third", {"mae": 3.0})
    assert table.best("mae") == ["single", "third"]


def test_diverged_runs_are_never_best():
    table = ResultsTable({"mae": False})
    table.add("diverged", {"mae": float("nan")})
    assert table.best("mae") == []
    table.add("sound", {"mae": 9.0})
    assert table.best("mae") == ["sound"]
    assert "nan" in str(table)


def test_markdown():
    assert filled(title="Digits").to_markdown().splitlines() == [
        "**Digits**",
        "",
        "|  | auc | mae | note | seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| single | 0.80 | **3.00** | 1.00 | - |",
        "| multi | **0.85 ± 0.07** | 4.50 ± 0.71 | - | 7.00 ± 0.00 |",
    ]


def test_text_is_aligned():
    title, *lines = str(filled(title="Digits")).splitlines()
    assert title == "Digits"
    assert [line.split() for line in lines[1:]] == [
        ["single", "0.80", "3.00", "*", "1.00", "-"],
        "multi 0.85 ± 0.07 * 4.50 ± 0.71 - 7.00 ± 0.00".split(),
    ]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("with_rich", [True, False])
def test_print(with_rich, capsys, monkeypatch):
    if with_rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    table = filled()
    table.add("a rather long name " * 9, {"auc": 0.1})
    table.print()
    printed = capsys.readouterr().out
    for text in (
        "single",
        "multi",
        "0.85 ± 0.07 *",
        "3.00 *",
        "a rather long name " * 9,
    ):
        assert text in printed


def test_digits_for_each_column():
    table = ResultsTable(digits={"seconds": 0})
    table.add("a", {"seconds": 7.6, "auc": 0.12345})
    assert table.to_markdown().endswith("| a | 8 | 0.123 |")


def test_an_empty_cell_has_no_mean():
    assert math.isnan(filled().mean("single", "seconds"))
    assert filled().mean("multi", "mae") == 4.5


@pytest.mark.parametrize("digits", [-1, 1.5, {"auc": -2}])
def test_digits_out_of_range(digits):
    with pytest.raises(ValueError, match=r"`digits` must be.*Received: digits="):
        ResultsTable(digits=digits)


def test_several_numbers_in_one_run():
    with pytest.raises(ValueError, match=r"`results\['auc'\]` must be one.*Received"):
        ResultsTable().add("a", {"auc": [0.1, 0.2]})
