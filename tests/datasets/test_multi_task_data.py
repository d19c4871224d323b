import numpy as np
import pytest

from keras_mtl.datasets import MultiTaskData, Split


def split(rows):
    return Split(np.zeros((rows, 2)), {"b": np.zeros(rows), "a": np.ones(rows)})


def zeros_and_ones():
    return MultiTaskData("both", split(5), split(2), split(3), meta={"known": 1})


def test_names_and_sizes():
    data = zeros_and_ones()
    assert data.task_names == ["b", "a"]
    assert data.sizes == {"train": 5, "validation": 2, "test": 3}
    x, y = data.train
    assert len(x) == len(y["a"]) == 5


def test_select_keeps_inputs_and_what_is_known():
    data = zeros_and_ones()
    chosen = data.select(["a"])
    assert chosen.task_names == ["a"] and chosen.sizes == data.sizes
    assert chosen.meta == {"known": 1} and chosen.name == "both"
    for name in ("train", "validation", "test"):
        assert getattr(chosen, name).x is getattr(data, name).x
        np.testing.assert_array_equal(getattr(chosen, name).y["a"], 1.0)
    assert data.select(["a", "b"]).task_names == ["a", "b"]


@pytest.mark.parametrize("tasks", [["c"], ["a", "a"], [], "a"])
def test_select_unknown_tasks(tasks):
    with pytest.raises(ValueError, match=r"`tasks` must be.*\['b', 'a'\].*Received"):
        zeros_and_ones().select(tasks)
