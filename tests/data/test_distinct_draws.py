import itertools

import numpy as np
import pytest

from keras_mtl.data.distinct_draws import distinct_width, draw_distinct


def draw(sizes, count, least, most, seed=0):
    width = distinct_width(least, most, count)
    noise = np.random.default_rng(seed).uniform(size=(*np.shape(sizes), width))
    return draw_distinct(noise, sizes, count, least)


@pytest.mark.parametrize(
    "count, least, most", [(3, 4, 9), (3, 24, 60), (20, 160, 9999)]
)
def test_draws_differ_and_are_below_their_size(count, least, most):
    sizes = np.random.default_rng(1).integers(least, most + 1, size=(500, 2))
    drawn = draw(sizes, count, least, most)
    assert drawn.shape == (500, 2, count)
    assert (drawn >= 0).all()
    assert (drawn < sizes[..., None]).all()
    assert (np.diff(np.sort(drawn, axis=-1), axis=-1) > 0).all()


@pytest.mark.parametrize("size, dense", [(4, True), (16, False)])
def test_every_ordered_pair_is_as_probable(size, dense):
    rows = 240_000
    assert (distinct_width(size, size, 2) == size) == dense
    drawn = draw(np.full(rows, size), 2, size, size)
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(pairs) == size * (size - 1)
    expected = rows / len(pairs)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert chi_square < len(pairs) + 5 * np.sqrt(2 * len(pairs))


def test_noise_that_is_all_alike_has_an_answer_nevertheless():
    count, size = 4, 100
    noise = np.full((2, distinct_width(size, size, count)), 0.5)
    drawn = draw_distinct(noise, np.full(2, size), count, size)
    for row in drawn:
        assert row[0] == 50
        assert len(set(row)) == count


def test_all_of_few_are_a_permutation():
    drawn = draw(np.full(2000, 3), 3, 3, 3)
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert [tuple(row) for row in found] == list(itertools.permutations(range(3)))
    assert counts.min() > 250
