"""Batches drawn from many tasks, so that tasks count as they are meant to."""

import math
import numbers
from typing import Any

import keras
import numpy as np

from keras_mtl.data.array_source import ArraySource
from keras_mtl.data.batch_prefetcher import BatchPrefetcher
from keras_mtl.data.batch_stream import is_batch_stream
from keras_mtl.data.multi_label_layout import MultiLabelLayout
from keras_mtl.data.per_task_layout import PerTaskLayout
from keras_mtl.data.stream_source import StreamSource
from keras_mtl.data.task_arrays import TaskArrays
from keras_mtl.data.task_index_layout import TaskIndexLayout
from keras_mtl.data.task_sampler import TaskSampler, largest_remainder

LAYOUTS = ("task_index", "multi_label", "per_task")


class TaskMixture(keras.utils.PyDataset):
    """Draws tasks, then points of each: batches in which no task drowns another.

    A task with $n_t$ points gets the share

    $$p_t = \\frac{n_t^{1/\\tau}}{\\sum_s n_s^{1/\\tau}}$$

    of all rows, whatever its size: $\\tau = \\infty$ is `"uniform"` (all tasks
    alike), $\\tau = 1$ is `"proportional"` (all points alike), and a number
    between tempers the two.

    Shares are kept within each batch, not only on average: of its rows, task `t`
    gets `batch_size * p_t`, rounded up or down at random so that the mean is exact
    (stratified, which has less variance than drawing the task of each row). The
    points of a task are visited in a random order without replacement; once all
    have been seen they are shuffled anew. This goes on from epoch to epoch.

    **Layouts.** What a batch looks like; all batches of a mixture have the same
    shapes and dtypes, so that nothing is compiled twice.

    - `"task_index"`: `({"x": rows, "task": index}, y)`. Rows of all tasks mixed; an
      input of shape `(batch_size,)`, int32, says which task a row belongs to, in
      the order of `task_names`. For a model with one output that is conditioned on
      the task. Inputs that are a dict keep their keys.
    - `"multi_label"`: `(rows, {task: y})`. Rows of all tasks mixed, one head for
      each task; the labels of a row are NaN for all tasks but its own. Integer
      labels become float for that.
    - `"per_task"`: `({task: x}, {task: y})`. Each task has inputs of its own, of any
      shape. Each gets a fixed number of rows, at least one, in the proportions
      above (by largest remainder), `batch_size` in total. With `tasks_per_batch` a
      task that is absent comes as inputs of zeros and labels of NaN.

    A third element, sample weights, is there if any task has them: one for tasks
    that came without, and zero where a label is NaN for want of the task.

    **Reproducible, in any order.** Where all data are arrays, batch `i` of epoch
    `e` is a function of `(seed, e, i)` alone, however many threads make it. Pass
    `shuffle=False` to `fit`, or else Keras also shuffles the order of the batches,
    with Python's global random numbers. The mixture counts the epochs that `fit`
    has finished; with `callbacks=[mixture.follow_epochs()]` it takes the number of
    the epoch from `fit` instead, as resuming needs (`initial_epoch`,
    `keras.callbacks.BackupAndRestore`).

    Args:
        data: Dict from task name to its data: `(x, y)` or `(x, y, sample_weight)`
            of arrays (`x` may be a nested dict; numpy memory maps stay on disk), or
            a `keras.utils.PyDataset` or `tf.data.Dataset` of such *batches* (as
            `fit` takes them), of any batch size. These are read on and on in their
            own order, so shuffle there; they need to be finite or endless, and only
            one of their batches is held in memory.
        batch_size: Integer, rows in a batch, of all tasks together.
        sampling: `"uniform"`, `"proportional"` or the temperature, a positive
            number. Defaults to `"uniform"`.
        tasks_per_batch: Integer, at most so many different tasks in a batch, with
            `batch_size / tasks_per_batch` rows each: the two-stage draw of tasks,
            then points. Which tasks is drawn for each batch with the shares above
            (a share of more than one slot takes several). Layout `"per_task"` draws
            tasks uniformly, its row numbers follow the shares already. Defaults to
            `None`, every task in every batch as far as its share allows.
        seed: Non-negative integer. Defaults to `0`.
        layout: `"task_index"`, `"multi_label"` or `"per_task"`. Defaults to
            `"task_index"`.
        task_input: Name of the input that holds the task's index in the layout
            `"task_index"`. Defaults to `"task"`.
        steps_per_epoch: Integer, batches in an epoch. Defaults to the number of all
            points divided by `batch_size`, rounded up.
        sizes: Dict from task name to its number of points, for streams that do not
            know it. Otherwise their number of batches times the rows of the first.
        workers: Integer. With more than one, so many threads make the next batches
            while one is trained on (a single thread where there is a stream, which
            has to be read in order), provided that `fit` asks for them in order
            (`shuffle=False`). Defaults to `1`, batches are made when asked for.
        max_queue_size: Integer, largest number of batches made ahead. Defaults to
            `10`.

    Raises:
        ValueError: for data, sizes or settings that cannot make a batch.

    Example:

    ```python
    rng = np.random.default_rng(0)
    small = rng.normal(size=(50, 4)), rng.normal(size=(50, 1))
    large = rng.normal(size=(800, 4)), rng.normal(size=(800, 1))
    mixture = keras_mtl.data.TaskMixture(
        {"small": small, "large": large}, batch_size=32
    )
    inputs, y = mixture[0]
    print(inputs["x"].shape, np.bincount(inputs["task"]))  # (32, 4) [16 16]
    ```

    Reference:
        Multi-task batches with temperature sampling: Arivazhagan et al.,
        "Massively Multilingual Neural Machine Translation in the Wild", 2019,
        https://arxiv.org/abs/1907.05019
    """

    def __init__(
        self,
        data: dict[str, Any],
        batch_size: int,
        sampling: str | float = "uniform",
        tasks_per_batch: int | None = None,
        seed: int = 0,
        layout: str = "task_index",
        task_input: str = "task",
        steps_per_epoch: int | None = None,
        sizes: dict[str, int] | None = None,
        workers: int = 1,
        max_queue_size: int = 10,
    ):
        super().__init__()
        self._arguments = {
            "data": data,
            "batch_size": batch_size,
            "sampling": sampling,
            "tasks_per_batch": tasks_per_batch,
            "seed": seed,
            "layout": layout,
            "task_input": task_input,
            "steps_per_epoch": steps_per_epoch,
            "sizes": sizes,
            "workers": workers,
            "max_queue_size": max_queue_size,
        }
        _check_names(data, sizes)
        _check_choice("layout", layout, LAYOUTS)
        _check_count("batch_size", batch_size, least=1)
        _check_count("seed", seed, least=0)
        _check_count("workers", workers, least=1)
        _check_count("max_queue_size", max_queue_size, least=1)
        if steps_per_epoch is not None:
            _check_count("steps_per_epoch", steps_per_epoch, least=1)
        if not isinstance(task_input, str) or not task_input:
            raise ValueError(
                "`task_input` must be the name of an input, a string that is not "
                f"empty. Received: task_input={task_input!r}"
            )
        _check_tasks_per_batch(tasks_per_batch, batch_size, len(data), layout)

        self._task_names = list(data)
        self._batch_size = batch_size
        self._seed = seed
        self._sources = [
            _source(task, task_data, seed, position, (sizes or {}).get(task))
            for position, (task, task_data) in enumerate(data.items())
        ]
        self._probabilities = self._shares(sampling)
        self._steps = steps_per_epoch or self._default_steps()
        self._layout, self._sampler = self._plan(layout, task_input, tasks_per_batch)
        for task, source in zip(self._task_names, self._sources, strict=True):
            if isinstance(source, ArraySource):
                self._layout.check_labels(task, source.arrays.y)

        self._prefetcher = None
        if workers > 1:
            streams = any(map(is_batch_stream, data.values()))
            self._prefetcher = BatchPrefetcher(
                self._make, self._steps, 1 if streams else workers, max_queue_size
            )
        self._epoch = 0
        self._within_epoch = False
        self._batches_read = 0

    def with_sampling(self, sampling: str | float) -> "TaskMixture":
        """Returns a mixture of the same data that draws tasks otherwise.

        Args:
            sampling: As for the constructor.
        """
        return TaskMixture(**{**self._arguments, "sampling": sampling})

    @property
    def task_names(self) -> list[str]:
        """The tasks, in the order of their indices."""
        return list(self._task_names)

    @property
    def sizes(self) -> dict[str, int | None]:
        """The number of points of each task, `None` where it is unknown."""
        return {
            task: source.size
            for task, source in zip(self._task_names, self._sources, strict=True)
        }

    @property
    def probabilities(self) -> dict[str, float]:
        """The share of all rows that each task gets."""
        return dict(zip(self._task_names, self._probabilities.tolist(), strict=True))

    @property
    def epoch(self) -> int:
        """The epoch that batches are made for, from 0."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes the batches of that epoch from now on, the first being 0.

        Args:
            epoch: Non-negative integer.

        Raises:
            ValueError: if `epoch` is no such number.
        """
        _check_count("epoch", epoch, least=0)
        self._epoch = epoch
        self._batches_read = 0

    def follow_epochs(self) -> keras.callbacks.Callback:
        """A callback for `fit` that sets the mixture to the epoch being trained.

        With it a training that is resumed at an epoch sees the very batches that it
        would have seen without a break.

        Returns:
            A `keras.callbacks.Callback`.
        """
        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.set_epoch(epoch)
        )

    def on_epoch_begin(self) -> None:
        """Called by Keras when it starts to read an epoch."""
        self._within_epoch = True

    def on_epoch_end(self) -> None:
        """Called by Keras when it stops reading; moves on if the epoch was read."""
        # Keras also calls this before the first epoch, having read a batch or two
        # to learn their shapes.
        if not self._within_epoch:
            self._batches_read = 0
        elif self._batches_read >= self._steps:
            self._epoch += 1
            self._batches_read = 0
        self._within_epoch = False

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple:
        if not 0 <= index < self._steps:
            raise IndexError(
                f"The mixture has batches 0 to {self._steps - 1}. "
                f"Received: index={index}"
            )
        self._batches_read += 1
        if self._prefetcher is None:
            return self._make(self._epoch, int(index))
        return self._prefetcher.get(self._epoch, int(index))

    def _make(self, epoch, index):
        positions, counts = self._sampler.batch(epoch, index)
        parts = [
            source.take(int(position), int(count))
            for source, position, count in zip(
                self._sources, positions, counts, strict=True
            )
        ]
        generator = np.random.default_rng(
            np.random.SeedSequence(self._seed, spawn_key=(2, epoch, index))
        )
        return self._layout.batch(parts, generator.permutation(int(counts.sum())))

    def _shares(self, sampling):
        if sampling == "uniform":
            temperature = math.inf
        elif sampling == "proportional":
            temperature = 1.0
        elif (
            isinstance(sampling, numbers.Real)
            and not isinstance(sampling, bool)
            and sampling > 0
        ):
            temperature = float(sampling)
        else:
            raise ValueError(
                '`sampling` must be "uniform", "proportional" or a temperature, a '
                f"positive number. Received: sampling={sampling!r}"
            )
        if math.isinf(temperature):
            return np.full(len(self._sources), 1.0 / len(self._sources))
        self._require_sizes(f"sampling={sampling!r}")
        sizes = np.array([source.size for source in self._sources], "float64")
        shares = (sizes / sizes.max()) ** (1.0 / temperature)
        return shares / shares.sum()

    def _default_steps(self):
        self._require_sizes("`steps_per_epoch=None`")
        points = sum(source.size for source in self._sources)
        return math.ceil(points / self._batch_size)

    def _require_sizes(self, what):
        unknown = [task for task, size in self.sizes.items() if size is None]
        if unknown:
            raise ValueError(
                f"{what} needs the number of points of each task; give it as "
                f"`sizes={{{unknown[0]!r}: ...}}`. Received: streams of unknown "
                f"length for tasks {unknown}"
            )

    def _plan(self, layout, task_input, tasks_per_batch):
        templates = {
            task: source.template
            for task, source in zip(self._task_names, self._sources, strict=True)
        }
        probabilities, rows_when_present = self._probabilities, None
        slots = tasks_per_batch
        if layout == "task_index":
            made = TaskIndexLayout(templates, task_input)
        elif layout == "multi_label":
            made = MultiLabelLayout(templates)
        else:
            rows_when_present = largest_remainder(
                self._probabilities * self._batch_size
            )
            probabilities = np.full(len(templates), 1.0 / len(templates))
            slots = tasks_per_batch or len(templates)
            made = PerTaskLayout(templates, rows_when_present, slots < len(templates))
        sampler = TaskSampler(
            probabilities,
            self._batch_size,
            self._steps,
            self._seed,
            slots,
            rows_when_present,
        )
        return made, sampler


def _source(task, data, seed, position, size):
    if is_batch_stream(data):
        return StreamSource(task, data, size)
    arrays = TaskArrays.from_data(task, data)
    if arrays.rows == 0:
        raise ValueError(
            f"Task '{task}' must have at least one point. Received: arrays of 0 rows"
        )
    if size is not None:
        raise ValueError(
            "`sizes` is for streams; the size of arrays is known. "
            f"Received: sizes[{task!r}]={size}"
        )
    return ArraySource(arrays, seed, position)


def _check_names(data, sizes):
    if not isinstance(data, dict) or not data:
        raise ValueError(
            "`data` must be a dict from task name to the data of the task, with at "
            f"least one task. Received: {data if data == {} else type(data).__name__}"
        )
    wrong = [task for task in data if not isinstance(task, str) or not task]
    if wrong:
        raise ValueError(
            f"Task names must be strings that are not empty. Received: {wrong}"
        )
    unknown = [task for task in sizes or {} if task not in data]
    if unknown:
        raise ValueError(
            f"`sizes` must name tasks of `data`, which are {list(data)}. "
            f"Received: {unknown}"
        )
    for task, size in (sizes or {}).items():
        _check_count(f"sizes[{task!r}]", size, least=1)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {list(choices)}. Received: {name}={value!r}"
        )


def _check_count(name, value, least):
    if (
        not isinstance(value, (int, np.integer))
        or isinstance(value, bool)
        or value < least
    ):
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. "
            f"Received: {name}={value!r}"
        )


def _check_tasks_per_batch(tasks_per_batch, batch_size, tasks, layout):
    if tasks_per_batch is not None:
        _check_count("tasks_per_batch", tasks_per_batch, least=1)
        if tasks_per_batch > tasks:
            raise ValueError(
                f"`tasks_per_batch` must be at most the number of tasks, {tasks}. "
                f"Received: tasks_per_batch={tasks_per_batch}"
            )
    present = tasks if layout == "per_task" else tasks_per_batch or tasks
    if batch_size < present:
        way_out = (
            "" if layout == "per_task" else ", or set `tasks_per_batch` to fewer tasks"
        )
        raise ValueError(
            f"`batch_size` must be at least {present}, a row for each task in a "
            f"batch{way_out}. Received: batch_size={batch_size}"
        )
