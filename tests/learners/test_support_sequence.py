import numpy as np
from built_learner import to_numpy

from keras_mtl.learners.support_sequence import at_place, in_front

MASK = np.array([[0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)


def test_what_is_there_comes_first_in_its_order():
    place = np.tile(np.arange(5.0, dtype="float32")[None, :, None], (3, 1, 1))
    mask, moved = map(to_numpy, in_front(MASK, place))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask.sum(1), [3, 5, 0])
    np.testing.assert_array_equal(mask, np.sort(MASK, 1)[:, ::-1])
    np.testing.assert_array_equal(
        moved[..., 0], [[1, 3, 4, 0, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    )


def test_all_tensors_move_alike():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 5, 2))
    _, one, other = in_front(MASK.astype("float32"), x, y)
    _, both = in_front(MASK, np.concatenate([x, y], -1))
    np.testing.assert_allclose(
        np.concatenate([to_numpy(one), to_numpy(other)], -1), to_numpy(both)
    )


def test_a_place_before_the_first_is_zero():
    sequence = np.arange(1.0, 31.0, dtype="float32").reshape(3, 5, 2)
    taken = to_numpy(at_place(sequence, np.array([0, 4, -1], "int32")))
    np.testing.assert_array_equal(taken, [sequence[0, 0], sequence[1, 4], [0, 0]])
    assert not to_numpy(at_place(sequence, np.array([-2, -9, -1], "int32"))).any()
