import pytest

from keras_mtl.datasets.data_directory import PublicFile
from keras_mtl.datasets.loader_arguments import (
    check_fractions,
    check_tasks,
    public_file,
)


@pytest.mark.parametrize("tasks", [[], "a", ["a", "c"], ["a", "a"]])
def test_tasks(tasks):
    check_tasks(["b", "a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"`tasks` must be.*\['a', 'b'\].*Received"):
        check_tasks(tasks, ["a", "b"])


@pytest.mark.parametrize("fractions", [(0, 0.1), (0.1, -0.1), (0.5, 0.5)])
def test_fractions(fractions):
    check_fractions(0.5, 0.4)
    with pytest.raises(ValueError, match=r"must be positive and leave.*Received"):
        check_fractions(*fractions)


def test_public_file():
    default = PublicFile("https://a/b.csv", "0" * 32, ("c.csv",))
    assert public_file(default, None, None) is default
    other = public_file(default, "https://a/d.csv", None)
    assert other == PublicFile("https://a/d.csv", None, ("c.csv",))
    checked = public_file(default, None, "1" * 64)
    assert checked == PublicFile("https://a/b.csv", "1" * 64, ("c.csv",))
