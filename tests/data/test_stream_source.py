import keras
import numpy as np
import pytest

from keras_mtl.data.batch_stream import (
    is_batch_stream,
    number_of_batches,
    one_pass,
)
from keras_mtl.data.stream_source import StreamSource


class Batches(keras.utils.PyDataset):
    """Numbered rows in batches of the given lengths; records what it is told."""

    def __init__(self, *lengths):
        super().__init__()
        self.lengths, self.told = lengths, []

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        first = sum(self.lengths[:index])
        rows = np.arange(first, first + self.lengths[index])
        return {"rows": rows}, rows, rows + 0.5

    def on_epoch_begin(self):
        self.told.append("begin")

    def on_epoch_end(self):
        self.told.append("end")


@pytest.mark.parametrize("counts", [[9] * 4, [1] * 20, [0, 3, 0, 20], [100]])
def test_hands_out_rows_in_order_whatever_the_batches(counts):
    source = StreamSource("a", Batches(4, 1, 0, 5))
    taken = [source.take(0, count) for count in counts]
    assert [part.rows for part in taken] == counts
    rows = np.concatenate([part.y for part in taken])
    np.testing.assert_array_equal(rows, np.arange(sum(counts)) % 10)
    for part in taken:
        np.testing.assert_array_equal(part.x["rows"], part.y)
        np.testing.assert_array_equal(part.sample_weight, part.y + 0.5)


def test_size_is_estimated_or_given():
    assert StreamSource("a", Batches(4, 4, 2)).size == 12
    assert StreamSource("a", Batches(4, 4, 2), size=10).size == 10


def test_template_has_the_shapes_and_no_rows():
    template = StreamSource("a", Batches(4)).template
    assert template.rows == 0 and template.x["rows"].dtype == np.int64


def test_a_dataset_is_told_of_its_epochs():
    dataset = Batches(2, 2)
    assert [len(batch[1]) for batch in one_pass(dataset)] == [2, 2]
    assert dataset.told == ["begin", "end"]
    assert number_of_batches(dataset) == 2


def test_tf_data():
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.range(6).batch(4)
    assert is_batch_stream(dataset)
    assert [batch.tolist() for batch in one_pass(dataset)] == [[0, 1, 2, 3], [4, 5]]
    assert number_of_batches(dataset) == 2
    assert number_of_batches(dataset.repeat()) is None
    assert number_of_batches(dataset.filter(lambda batch: True)) is None


@pytest.mark.parametrize("source", [np.zeros(3), (np.zeros(3), np.zeros(3)), [1], None])
def test_what_is_no_stream(source):
    assert not is_batch_stream(source)
