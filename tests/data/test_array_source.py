import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_mtl.data.array_source import ArraySource
from keras_mtl.data.task_arrays import TaskArrays


def source_of(rows, seed=0, task_index=0):
    identity = np.arange(rows)
    return ArraySource(TaskArrays(identity, identity, None), seed, task_index)


@pytest.mark.parametrize("rows", [1, 3, 100, 5000])
def test_every_pass_visits_every_row_once(rows):
    source = source_of(rows)
    for number in range(4):
        visited = source.take(number * rows, rows).y
        np.testing.assert_array_equal(np.sort(visited), np.arange(rows))


@pytest.mark.parametrize("rows", [10, 5000])
def test_passes_differ(rows):
    source = source_of(rows)
    passes = [source.take(number * rows, rows).y for number in range(3)]
    assert not np.array_equal(passes[0], passes[1])
    assert not np.array_equal(passes[1], passes[2])


def test_any_reading_order_gives_the_same_rows():
    whole = source_of(37).take(0, 20000).y
    source = source_of(37)
    for start in (19000, 5, 4090, 0, 12345):
        np.testing.assert_array_equal(
            source.take(start, 60).y, whole[start : start + 60]
        )


def test_threads_read_the_same_rows():
    whole = source_of(5000).take(0, 60000).y
    source = source_of(5000)
    starts = np.random.default_rng(0).permutation(np.arange(0, 60000, 50))
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda start: source.take(start, 50).y, starts))
    for start, piece in zip(starts, pieces, strict=True):
        np.testing.assert_array_equal(piece, whole[start : start + 50])


def test_tasks_and_seeds_have_orders_of_their_own():
    orders = [
        tuple(source_of(50, seed, task).take(0, 50).y)
        for seed in (0, 1)
        for task in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_a_pickled_source_goes_on_alike():
    source = source_of(37)
    expected = source.take(100, 50).y
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(source)).take(100, 50).y, expected
    )


def test_a_memory_map_stays_on_disk(tmp_path):
    path = tmp_path / "x.dat"
    mapped = np.memmap(path, "float32", "w+", shape=(100, 4))
    mapped[:] = np.arange(100)[:, None]
    arrays = TaskArrays.from_data("a", (mapped, np.arange(100)))
    assert isinstance(arrays.x, np.memmap)
    rows = ArraySource(arrays, 0, 0).take(0, 10)
    assert type(rows.x) is np.ndarray
    np.testing.assert_array_equal(rows.x[:, 0], rows.y)
