import threading

import numpy as np

from keras_mtl.data.batch_prefetcher import BatchPrefetcher


class Maker:
    """Counts how often each batch is made, and in which order."""

    def __init__(self):
        self.made = []

    def __call__(self, epoch, index):
        self.made.append((epoch, index))
        return epoch, index


def test_hands_out_what_was_asked_for_in_any_order():
    prefetcher = BatchPrefetcher(Maker(), steps=20, threads=3, ahead=4)
    asked = np.random.default_rng(0).integers(0, 20, 200)
    for number, index in enumerate(asked):
        epoch = number // 50
        assert prefetcher.get(epoch, int(index)) == (epoch, int(index))


def test_in_order_every_batch_is_made_once():
    make = Maker()
    prefetcher = BatchPrefetcher(make, steps=12, threads=3, ahead=4)
    for epoch in range(2):
        for index in range(12):
            prefetcher.get(epoch, index)
    expected = [(epoch, index) for epoch in range(2) for index in range(12)]
    assert sorted(make.made) == expected


def test_a_peek_at_the_first_batch_wastes_none_of_the_next():
    make = Maker()
    prefetcher = BatchPrefetcher(make, steps=12, threads=2, ahead=4)
    prefetcher.get(0, 0)
    for index in range(12):
        prefetcher.get(0, index)
    assert sorted(make.made) == [(0, 0), *((0, index) for index in range(12))]


def test_one_thread_makes_batches_in_order():
    make = Maker()
    prefetcher = BatchPrefetcher(make, steps=30, threads=1, ahead=5)
    for index in range(30):
        prefetcher.get(0, index)
    assert make.made == [(0, index) for index in range(30)]


def test_next_batches_are_made_without_being_asked_for():
    made = threading.Event()

    def make(epoch, index):
        if index == 3:
            made.set()
        return index

    prefetcher = BatchPrefetcher(make, steps=10, threads=2, ahead=3)
    prefetcher.get(0, 0)
    assert made.wait(timeout=10)


def test_errors_of_a_thread_reach_the_reader():
    def make(epoch, index):
        if index == 2:
            raise ArithmeticError("no such batch")
        return index

    prefetcher = BatchPrefetcher(make, steps=5, threads=2, ahead=3)
    prefetcher.get(0, 0)
    prefetcher.get(0, 1)
    try:
        prefetcher.get(0, 2)
    except ArithmeticError as error:
        assert "no such batch" in str(error)
    else:
        raise AssertionError("the error was lost")
